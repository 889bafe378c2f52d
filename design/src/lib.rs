//! The design of leases, epochs, checkpoints and reshards, in every state that it can get into:
//! pools that look at the rows and act on what they saw a while ago, die, come again, are taken for
//! dead while they go on, and ask each other for shards; shards that are split and merged.
//!
//! This is not millstream's code, but what it does told again, in as few words as possible. Each
//! law of it can be left out; then the checker finds what goes wrong.
#![cfg(test)]

use stateright::{Checker, Model, Property};

const SHARDS: usize = 4;
const POOLS: usize = 2;

/// Which laws hold, and how much happens.
#[derive(Clone)]
struct Design {
    /// A row is replaced only by who has seen the one before.
    rows_are_compared: bool,
    /// An owner whose lease was taken does not take up the new row as its own.
    epochs_are_checked: bool,
    /// A child begins when its parents have ended.
    parents_first: bool,
    /// A checkpoint follows what was processed.
    processed_first: bool,
    /// How many shards there may be: 3 with a split, 4 with a merge as well.
    shards: usize,
    records: u8,
    /// How often a shard is taken.
    epochs: u8,
    /// How often pools die, are taken for dead, and ask for shards.
    mishaps: u8,
}

const GOOD: Design = Design {
    rows_are_compared: true,
    epochs_are_checked: true,
    parents_first: true,
    processed_first: true,
    shards: 3,
    records: 1,
    epochs: 2,
    mishaps: 1,
};

/// How far a shard is processed: so many records, or all there will ever be.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, PartialOrd, Ord)]
enum Checkpoint {
    After(u8),
    End,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Row {
    generation: u8,
    epoch: u8,
    owner: Option<usize>,
    checkpoint: Checkpoint,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Held {
    /// The row as it was seen last, and the epoch in which it was taken.
    row: Row,
    epoch: u8,
    position: u8,
}

#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
struct Pool {
    /// Others count on it.
    is_member: bool,
    /// The rows when it looked last, and who was there.
    seen: Option<([Option<Row>; SHARDS], [bool; POOLS])>,
    held: [Option<Held>; SHARDS],
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct State {
    /// How many shards there are, and how many records were put to each.
    shards: usize,
    put: [u8; SHARDS],
    /// How many of the first records of a shard are processed.
    processed: [u8; SHARDS],
    rows: [Option<Row>; SHARDS],
    pools: [Pool; POOLS],
    mishaps: u8,
    wrong: Option<Wrong>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Wrong {
    CheckpointWentBack,
    OldOwnerStored,
    ChildBeforeParent,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Put(usize),
    Reshape,
    Look(usize),
    Take(usize, usize),
    Process(usize, usize),
    Store(usize, usize),
    Release(usize, usize),
    Ask(usize, usize),
    Die(usize),
    /// The others do not hear of it, but it goes on.
    Silence(usize),
    Join(usize),
}

fn parents(shard: usize) -> &'static [usize] {
    [&[][..], &[0], &[0], &[1, 2]][shard]
}

impl State {
    fn is_closed(&self, shard: usize) -> bool {
        (shard + 1..self.shards).any(|child| parents(child).contains(&shard))
    }

    /// Replaces a row; false if it is not the one that was seen.
    fn replace(&mut self, design: &Design, shard: usize, row: Row) -> bool {
        let now = self.rows[shard].expect("it was seen");
        let is_next = now.generation + 1 == row.generation;
        if !is_next && design.rows_are_compared {
            return false;
        }
        if row.checkpoint < now.checkpoint {
            self.wrong = Some(Wrong::CheckpointWentBack);
        }
        self.rows[shard] = Some(row);
        true
    }

    /// Changes the row of a shard that a pool has, unless it has lost it.
    fn update(&mut self, design: &Design, pool: usize, shard: usize, change: impl Fn(&mut Row)) {
        let Some(mut held) = self.pools[pool].held[shard] else { return };
        loop {
            let mut row = Row { generation: held.row.generation + 1, ..held.row };
            change(&mut row);
            let now = self.rows[shard].expect("it has a row");
            if self.replace(design, shard, row) {
                if now.epoch != held.epoch {
                    self.wrong = Some(Wrong::OldOwnerStored);
                }
                held.row = row;
                self.pools[pool].held[shard] = Some(held);
                return;
            }
            if now.epoch != held.row.epoch && design.epochs_are_checked {
                self.pools[pool].held[shard] = None;
                return;
            }
            held.row = now;
        }
    }

    fn take(&mut self, design: &Design, pool: usize, shard: usize) {
        let (rows, _) = self.pools[pool].seen.expect("it has looked");
        let seen = rows[shard].expect("it has seen the row");
        let (generation, epoch) = (seen.generation + 1, seen.epoch + 1);
        let row = Row { generation, epoch, owner: Some(pool), ..seen };
        if self.replace(design, shard, row) {
            let Checkpoint::After(position) = seen.checkpoint else { return };
            self.pools[pool].held[shard] = Some(Held { row, epoch, position });
        }
    }

    fn process(&mut self, pool: usize, shard: usize) {
        let ended = |parent: &usize| {
            self.rows[*parent].is_some_and(|row| row.checkpoint == Checkpoint::End)
        };
        if !parents(shard).iter().all(ended) {
            self.wrong = Some(Wrong::ChildBeforeParent);
        }
        let held = self.pools[pool].held[shard].as_mut().expect("it has the shard");
        if self.processed[shard] == held.position {
            self.processed[shard] += 1;
        }
        held.position += 1;
    }

    /// Stores how far a pool is.
    fn store(&mut self, design: &Design, pool: usize, shard: usize) {
        let held = self.pools[pool].held[shard].expect("it has the shard");
        let ahead = u8::from(!design.processed_first && held.position < self.put[shard]);
        let is_over = self.is_closed(shard) && held.position == self.put[shard];
        let checkpoint = match is_over {
            true => Checkpoint::End,
            false => Checkpoint::After(held.position + ahead),
        };
        if checkpoint != held.row.checkpoint {
            self.update(design, pool, shard, |row| row.checkpoint = checkpoint);
        }
        if is_over {
            self.pools[pool].held[shard] = None;
        }
    }

    /// Which shards a pool may take, by what it has seen.
    fn free(&self, design: &Design, pool: usize) -> Vec<usize> {
        let Some((rows, members)) = self.pools[pool].seen else { return Vec::new() };
        let has_ended =
            |shard: usize| rows[shard].is_some_and(|row| row.checkpoint == Checkpoint::End);
        let is_free = |shard: &usize| {
            let Some(row) = rows[*shard] else { return false };
            let may_begin =
                !design.parents_first || parents(*shard).iter().all(|parent| has_ended(*parent));
            let owner = row.owner.filter(|owner| members[*owner]);
            let is_bounded = row.epoch < design.epochs;
            !has_ended(*shard) && may_begin && owner.is_none() && is_bounded
        };
        (0..SHARDS).filter(is_free).collect()
    }
}

impl Model for Design {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let pool = Pool { is_member: true, ..Pool::default() };
        vec![State {
            shards: 1,
            put: [0; SHARDS],
            processed: [0; SHARDS],
            rows: [None; SHARDS],
            pools: [pool.clone(), pool],
            mishaps: self.mishaps,
            wrong: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let open = (0..state.shards).filter(|shard| !state.is_closed(*shard));
        actions.extend(open.filter(|shard| state.put[*shard] < self.records).map(Action::Put));
        if state.shards < self.shards {
            actions.push(Action::Reshape);
        }
        for (id, pool) in state.pools.iter().enumerate() {
            let works = pool.is_member || pool.held.iter().any(Option::is_some);
            if !works {
                actions.push(Action::Join(id));
                continue;
            }
            if pool.is_member {
                actions.push(Action::Look(id));
                let free = state.free(self, id);
                let mine = |shard: &usize| pool.held[*shard].is_none();
                actions.extend(free.into_iter().filter(mine).map(|shard| Action::Take(id, shard)));
            }
            for (shard, held) in pool.held.iter().enumerate() {
                let Some(held) = held else { continue };
                if held.position < state.put[shard] {
                    actions.push(Action::Process(id, shard));
                }
                actions.extend([Action::Store(id, shard), Action::Release(id, shard)]);
                if state.mishaps > 0 {
                    actions.push(Action::Ask(id, shard));
                }
            }
            if state.mishaps > 0 && pool.is_member {
                actions.extend([Action::Die(id), Action::Silence(id)]);
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Put(shard) => state.put[shard] += 1,
            Action::Reshape => state.shards = if state.shards == 1 { 3 } else { 4 },
            Action::Look(id) => {
                let first =
                    Row { generation: 0, epoch: 0, owner: None, checkpoint: Checkpoint::After(0) };
                for row in &mut state.rows[..last.shards] {
                    row.get_or_insert(first);
                }
                let members = std::array::from_fn(|pool| last.pools[pool].is_member);
                state.pools[id].seen = Some((state.rows, members));
                // What it has lost it lets go of.
                for (held, row) in state.pools[id].held.iter_mut().zip(&state.rows) {
                    held.take_if(|held| {
                        self.epochs_are_checked && row.is_some_and(|row| row.epoch != held.epoch)
                    });
                }
            }
            Action::Take(id, shard) => state.take(self, id, shard),
            Action::Process(id, shard) => state.process(id, shard),
            Action::Store(id, shard) => state.store(self, id, shard),
            Action::Release(id, shard) => {
                state.update(self, id, shard, |row| row.owner = None);
                state.pools[id].held[shard] = None;
            }
            // The request changes the row under the one who has the shard.
            Action::Ask(_, shard) => {
                let row = state.rows[shard].as_mut()?;
                row.generation += 1;
                state.mishaps -= 1;
            }
            Action::Die(id) => {
                state.pools[id] = Pool::default();
                state.mishaps -= 1;
            }
            Action::Silence(id) => {
                state.pools[id].is_member = false;
                state.mishaps -= 1;
            }
            Action::Join(id) => {
                state.pools[id] = Pool { is_member: true, ..Pool::default() };
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing goes wrong", |_: &Self, state: &State| state.wrong.is_none()),
            Property::always("no checkpoint is ahead", |_: &Self, state: &State| {
                state.rows.iter().zip(state.processed).enumerate().all(|(shard, (row, done))| {
                    match row.map(|row| row.checkpoint) {
                        None => true,
                        Some(Checkpoint::After(count)) => count <= done,
                        Some(Checkpoint::End) => state.is_closed(shard) && done == state.put[shard],
                    }
                })
            }),
            Property::always("one owner at most can store", |_: &Self, state: &State| {
                (0..SHARDS).all(|shard| {
                    let holds = |pool: &&Pool| {
                        let epoch = state.rows[shard].map(|row| row.epoch);
                        pool.held[shard].is_some_and(|held| Some(held.epoch) == epoch)
                    };
                    state.pools.iter().filter(holds).count() <= 1
                })
            }),
            Property::sometimes("all is processed", |design: &Self, state: &State| {
                let is_done = |shard: usize| {
                    state.put[shard] == design.records
                        && state.rows[shard].is_some_and(|row| {
                            row.checkpoint == Checkpoint::After(design.records)
                                || row.checkpoint == Checkpoint::End
                        })
                };
                state.shards == design.shards && (0..design.shards).all(is_done)
            }),
        ]
    }
}

fn check(design: Design, limit: usize) -> impl Checker<Design> {
    let checker = design.checker().threads(2).target_state_count(limit).spawn_bfs().join();
    println!(
        "{} states, {} of them different",
        checker.state_count(),
        checker.unique_state_count()
    );
    checker
}

/// How many states are looked at: the nearest ones first.
fn limit() -> usize {
    std::env::var("MILLSTREAM_STATES").map_or(1_000_000, |states| states.parse().unwrap())
}

fn keeps_its_laws(design: Design) {
    let checker = check(design, limit());
    checker.assert_no_discovery("nothing goes wrong");
    checker.assert_no_discovery("no checkpoint is ahead");
    checker.assert_no_discovery("one owner at most can store");
}

#[test]
fn the_design_keeps_its_laws_over_a_split() {
    keeps_its_laws(Design { mishaps: 2, epochs: 3, ..GOOD });
}

#[test]
fn the_design_keeps_its_laws_over_a_split_and_a_merge() {
    keeps_its_laws(Design { shards: 4, ..GOOD });
}

#[test]
fn all_is_processed_in_the_end() {
    check(Design { epochs: 1, mishaps: 0, ..GOOD }, usize::MAX).assert_properties();
}

#[test]
fn without_comparing_rows_a_checkpoint_is_stored_by_an_old_owner() {
    let design = Design { rows_are_compared: false, ..GOOD };
    assert!(check(design, limit()).discovery("nothing goes wrong").is_some());
}

#[test]
fn without_checking_epochs_a_checkpoint_is_stored_by_an_old_owner() {
    let design = Design { epochs_are_checked: false, ..GOOD };
    assert!(check(design, limit()).discovery("nothing goes wrong").is_some());
}

#[test]
fn without_parents_first_a_child_is_begun_too_early() {
    let design = Design { parents_first: false, ..GOOD };
    assert!(check(design, limit()).discovery("nothing goes wrong").is_some());
}

#[test]
fn without_processing_first_a_checkpoint_is_ahead() {
    let design = Design { processed_first: false, ..GOOD };
    assert!(check(design, limit()).discovery("no checkpoint is ahead").is_some());
}
