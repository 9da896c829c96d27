//! Lives that once broke a promise, by what they show.

use super::*;

#[test]
fn idle_segments_leave_no_hole_when_they_go() {
    let rows = |rows, bytes| Step::Rows { class: Class::Foreign, device: 0, rows, bytes };
    let reopen = || Step::Reopen { kill: false, segments: 10, when_full: WhenFull::Auto };
    let kept = || Step::Letters { back: 0, unkept: false, device: None };
    // The second life leaves two segments that hold nothing that anybody gets: the first of them was given up.
    let first = [rows(7, 365), reopen()];
    let second = [Step::FailSync(2), kept(), Step::Mark, kept(), reopen()];
    let third = [Step::Sink(0), rows(1, 0)];
    let mut world = World::new();
    world.reopen(false, 16, WhenFull::Auto).unwrap();
    for step in first.iter().chain(&second).chain(&third) {
        world.take(step).unwrap();
    }
    world.everything_is_readable().unwrap();
}

#[test]
fn rows_leave_the_reserve_to_delivery_however_often_it_starts() {
    let rows = || Step::Rows { class: Class::Foreign, device: 3, rows: 3, bytes: 300 };
    let mut world = World::new();
    world.reopen(false, 16, WhenFull::Refuse).unwrap();
    world.take(&Step::Sink(0)).unwrap();
    for life in 0..20 {
        let mut before = Offset(0);
        while before < world.model.end() {
            before = world.model.end();
            world.take(&rows()).unwrap();
        }
        for _ in 0..5 {
            let before = world.model.end();
            world.take(&Step::Cursor { sink: 0, back: before.0 - 3 }).unwrap();
            assert!(world.model.end() > before, "no room for a cursor in life {life}");
        }
        assert!(world.segments() <= world.segments_max(), "{} segments in life {life}", world.segments());
        world.reopen(false, 16, WhenFull::Refuse).unwrap();
        world.take(&Step::Mark).unwrap();
        world.take(&Step::Cursor { sink: 0, back: world.model.end().0 - 3 }).unwrap();
    }
}

#[test]
fn what_is_idle_stays_until_a_header_calls_it_void() {
    let rows = |bytes| Step::Rows { class: Class::Foreign, device: 0, rows: 6, bytes };
    let letters = || Step::Letters { back: 0, unkept: false, device: None };
    let reopen = || Step::Reopen { kill: false, segments: 16, when_full: WhenFull::Auto };
    let idle = |world: &World| world.shared.segments().iter().filter(|segment| segment.idle).count();
    let mut world = World::new();
    world.reopen(false, 16, WhenFull::Auto).unwrap();
    for step in [Step::Sink(0), rows(500), rows(500), rows(500), reopen(), rows(500), Step::FailSync(0)] {
        world.take(&step).unwrap();
    }
    // The letters go into the file that takes over, and then into a segment behind, in the same life.
    let before = world.segments();
    while world.segments() < before + 2 {
        world.take(&letters()).unwrap();
    }
    world.take(&reopen()).unwrap();
    assert_eq!(idle(&world), 2);
    // Nothing was taken, so that no segment was begun.
    world.commit().unwrap();
    world.everything_is_readable().unwrap();
    // One of them goes, the other is still needed for its snapshot: neither leaves a hole.
    world.take(&rows(1)).unwrap();
    world.everything_is_readable().unwrap();
    assert_eq!(idle(&world), 1);
}
