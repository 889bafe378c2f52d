//! The benchmark: what it tells, and that it leaves nothing behind.

use std::fs;

use crate::harness::{Place, run};

#[test]
fn it_tells_figures_beside_the_limits_and_leaves_only_the_picture() {
    let place = Place::without_stream();
    let (dir, plot) = (place.root().to_str().unwrap(), place.path("bench.svg"));
    let plot = plot.to_str().unwrap();
    let args = ["bench", dir, "--quick", "--only", "put 64 KiB", "--plot", plot, "--json"];
    let json = run(&args).succeeded().json();
    let figures = json["figures"].as_array().unwrap();
    let by: Vec<_> = figures.iter().map(|figure| figure["by"].as_str().unwrap()).collect();
    assert_eq!(by[2..4], ["BufWriter", "put"]);
    for figure in figures.iter().filter(|figure| figure["work"] == "put 64 KiB") {
        assert!(figure["mib_per_s"].as_f64().unwrap() > 0.0, "{figure}");
    }
    let ours = &figures[3]["latency_ns"];
    assert!(ours["p50"].as_u64() <= ours["max"].as_u64() && ours["count"].as_u64() > Some(0));
    assert!(fs::read_to_string(plot).unwrap().starts_with("<svg "));
    assert_eq!(fs::read_dir(dir).unwrap().count(), 1);
}

#[test]
fn a_place_where_it_cannot_work_is_named_at_once() {
    let place = Place::without_stream();
    run(&["bench", &place.stream, "--quick"]).failed(1, &[&place.stream]);
    let dir = place.root().to_str().unwrap();
    run(&["bench", dir, "--quick", "--only", "nothing"]).failed(1, &["nothing"]);
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
}
