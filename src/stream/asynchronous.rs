//! Reading in asynchronous code, whatever runs it: tasks sleep on the events that threads sleep on.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::error::Result;
use crate::os::alarm;
use crate::os::signal::Event;
use crate::stream::{Scan, ScannedRecord, ShardIterator, Stream};

impl Stream {
    /// Waits as [`wait`](Self::wait) does, without a thread: ready when there is something to read
    /// at the iterator. It can be dropped at any time, and needs no runtime; a record put in this
    /// process wakes it, one of another process is seen about a millisecond later.
    ///
    /// Puts are not asynchronous: at [`Durability::Os`](crate::Durability::Os) they wait for
    /// nothing.
    ///
    /// # Errors
    /// As [`get_records`](Self::get_records).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// use millstream::{Limit, ShardId, ShardIterator, StartingPosition, Stream};
    ///
    /// /// The data of the next record, whenever it comes.
    /// async fn next(stream: &Stream, iterator: &ShardIterator) -> millstream::Result<Vec<u8>> {
    ///     stream.wait_async(iterator).await?;
    ///     let page = stream.get_records(iterator, Limit::records(1))?;
    ///     Ok(page.records.get(0).expect("there is one now").data().to_vec())
    /// }
    ///
    /// let latest = stream.shard_iterator(ShardId::new(0), StartingPosition::Latest)?;
    /// let mut next = std::pin::pin!(next(&stream, &latest));
    /// # use std::{future::Future, task::{Context, Poll, Waker}};
    /// # let mut cx = Context::from_waker(Waker::noop());
    /// // Your runtime does this.
    /// assert!(next.as_mut().poll(&mut cx).is_pending());
    /// stream.put("customer-7", "clicked")?;
    /// assert!(matches!(next.as_mut().poll(&mut cx), Poll::Ready(Ok(data)) if data == b"clicked"));
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn wait_async(
        &self,
        iterator: &ShardIterator,
    ) -> impl Future<Output = Result<()>> + Send + Unpin + use<> {
        Wait { stream: self.clone(), iterator: iterator.clone(), event: Arc::default() }
    }
}

/// Ready when there is something to read at an iterator.
struct Wait {
    stream: Stream,
    iterator: ShardIterator,
    event: Arc<Event>,
}

impl Future for Wait {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            let rings = self.stream.notify(&self.iterator, &self.event)?;
            if !self.event.has_happened_or_wakes(cx.waker()) {
                if !rings {
                    alarm::wake_soon(cx.waker());
                }
                return Poll::Pending;
            }
            match self.stream.look(&self.iterator)? {
                Some(next) => self.iterator = next,
                None => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        // If the shard is gone, so is its bell.
        let _ = self.stream.forget(self.iterator.shard(), &self.event);
    }
}

/// A [`Scan`] as a `futures_core::Stream`; made by [`Scan::into_async`].
///
/// It gives what the scan gives, in the same order, and ends when that does; after an error nothing
/// more comes. At the tip it sleeps until there is more, as [`Stream::wait_async`] does. Dropping
/// it, or what waits for it, at any time loses no record.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use std::future::poll_fn;
/// use std::pin::Pin;
/// use futures_core::Stream as _;
/// use millstream::AsyncScan;
///
/// /// The next record, whenever it comes.
/// async fn next(clicks: &mut AsyncScan) -> Option<millstream::Result<millstream::ScannedRecord>> {
///     poll_fn(|cx| Pin::new(&mut *clicks).poll_next(cx)).await
/// }
/// # stream.put("customer-7", "clicked")?;
/// # use std::task::{Context, Poll, Waker};
/// # let mut clicks = stream.scan(..)?.into_async();
/// # let next = std::pin::pin!(next(&mut clicks));
/// # let mut cx = Context::from_waker(Waker::noop());
/// # assert!(matches!(next.poll(&mut cx), Poll::Ready(Some(Ok(_)))));
/// # Ok::<(), millstream::Error>(())
/// ```
pub struct AsyncScan {
    scan: Scan,
    event: Arc<Event>,
}

impl Scan {
    /// The scan for asynchronous code. Reading itself is done by whoever polls: from memory, or
    /// from the disk where pages are not in memory.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// use std::pin::Pin;
    /// use futures_core::Stream as _;
    ///
    /// let mut clicks = stream.scan(..)?.follow_lineage().into_async();
    /// # use std::task::{Context, Poll, Waker};
    /// # let mut cx = Context::from_waker(Waker::noop());
    /// // With `StreamExt` of your runtime: while let Some(click) = clicks.next().await {
    /// assert!(Pin::new(&mut clicks).poll_next(&mut cx).is_pending());
    /// stream.put("customer-7", "clicked")?;
    /// let Poll::Ready(Some(click)) = Pin::new(&mut clicks).poll_next(&mut cx) else { panic!() };
    /// assert_eq!(click?.record().data(), b"clicked");
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn into_async(self) -> AsyncScan {
        AsyncScan { scan: self, event: Arc::default() }
    }
}

impl futures_core::Stream for AsyncScan {
    type Item = Result<ScannedRecord>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { scan, event } = &mut *self;
        loop {
            if let Some(next) = scan.next() {
                return Poll::Ready(Some(next));
            }
            if scan.is_finished() {
                return Poll::Ready(None);
            }
            match scan.notify_at_tips(event) {
                Ok(rings) if !event.has_happened_or_wakes(cx.waker()) => {
                    if !rings {
                        alarm::wake_soon(cx.waker());
                    }
                    return Poll::Pending;
                }
                Ok(_) => scan.look_at_tips(),
                Err(error) => {
                    scan.end();
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

impl Drop for AsyncScan {
    fn drop(&mut self) {
        // If a shard is gone, so is its bell.
        let _ = self.scan.forget(&self.event);
    }
}

impl fmt::Debug for AsyncScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncScan").field(&self.scan).finish()
    }
}
