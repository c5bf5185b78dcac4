use super::*;

fn terms(block: u16, window: u16) -> Terms {
    Terms { block, window, timeout: Duration::from_secs(1), rollover: 0 }
}

fn blocks(first: u64, count: u16) -> Step {
    Step::Send(Burst::Blocks { first, count })
}

#[test]
fn a_file_goes_block_by_block_and_ends_with_a_short_one() {
    let now = Instant::now();
    let (mut transfer, first) = Transfer::new(1024, terms(512, 1), false, now);
    assert_eq!(first, Burst::Blocks { first: 1, count: 1 });
    assert_eq!(transfer.hear(&Reply::Ack(1), now), blocks(2, 1));
    assert_eq!(transfer.hear(&Reply::Ack(2), now), blocks(3, 1));
    assert_eq!((transfer.span(&(1..2)), transfer.span(&(3..4))), (0..512, 1024..1024));
    assert_eq!(transfer.hear(&Reply::Ack(3), now), Step::End(End::Done));
    assert_eq!((transfer.taken(), transfer.resent()), (1024, 0));
}

#[test]
fn an_empty_file_is_one_empty_block() {
    let now = Instant::now();
    let (mut transfer, first) = Transfer::new(0, terms(512, 16), false, now);
    assert_eq!(first, Burst::Blocks { first: 1, count: 1 });
    assert_eq!(transfer.span(&(1..2)), 0..0);
    assert_eq!(transfer.hear(&Reply::Ack(1), now), Step::End(End::Done));
}

#[test]
fn options_are_acknowledged_before_anything_is_sent() {
    let now = Instant::now();
    let (mut transfer, first) = Transfer::new(9000, terms(1468, 4), true, now);
    assert_eq!(first, Burst::Options);
    assert!(!transfer.is_heard());
    assert_eq!(transfer.hear(&Reply::Ack(1), now), Step::Wait, "nothing was sent");
    assert_eq!(transfer.hear(&Reply::Ack(0), now), blocks(1, 4));
    assert!(transfer.is_heard());
    assert_eq!(transfer.hear(&Reply::Ack(4), now), blocks(5, 3));
    assert_eq!(transfer.hear(&Reply::Ack(7), now), Step::End(End::Done));
}

#[test]
fn the_same_acknowledgement_again_never_doubles_what_is_sent() {
    let now = Instant::now();
    let (mut lockstep, _) = Transfer::new(9000, terms(512, 1), false, now);
    assert_eq!(lockstep.hear(&Reply::Ack(1), now), blocks(2, 1));
    for _ in 0..9 {
        assert_eq!(lockstep.hear(&Reply::Ack(1), now), Step::Wait);
    }
    let (mut window, _) = Transfer::new(90_000, terms(512, 4), false, now);
    assert_eq!(window.hear(&Reply::Ack(4), now), blocks(5, 4));
    // Its first block was lost: the client says so for each of the others, and gets it once.
    assert_eq!(window.hear(&Reply::Ack(4), now), blocks(5, 4));
    assert_eq!(window.hear(&Reply::Ack(4), now), Step::Wait);
    assert_eq!(window.hear(&Reply::Ack(4), now), Step::Wait);
    assert_eq!(window.hear(&Reply::Ack(8), now), blocks(9, 4));
    assert_eq!(window.resent(), 4);
}

#[test]
fn a_gap_in_a_window_is_filled_from_where_it_begins() {
    let now = Instant::now();
    let (mut transfer, _) = Transfer::new(90_000, terms(512, 4), false, now);
    assert_eq!(transfer.hear(&Reply::Ack(2), now), blocks(3, 4));
    assert_eq!(transfer.hear(&Reply::Ack(2), now), Step::Wait, "it is on its way");
    assert_eq!(transfer.hear(&Reply::Ack(1), now), Step::Wait, "that is late");
    assert_eq!(transfer.hear(&Reply::Ack(7), now), Step::Wait, "that was never sent");
    assert_eq!(transfer.hear(&Reply::Ack(6), now), blocks(7, 4));
}

#[test]
fn silence_is_answered_a_few_times_and_ever_later() {
    let start = Instant::now();
    let (mut transfer, _) = Transfer::new(9000, terms(512, 2), true, start);
    let mut times = Vec::new();
    let end = loop {
        let now = transfer.deadline();
        assert_eq!(transfer.tick(now - Duration::from_millis(1)), Step::Wait);
        times.push((now - start).as_secs());
        match transfer.tick(now) {
            Step::Send(burst) => assert_eq!(burst, Burst::Options),
            Step::End(end) => break end,
            Step::Wait => panic!("it is time"),
        }
    };
    assert_eq!((end, times), (End::Silent, vec![1, 2, 4, 6, 10]));
}

#[test]
fn a_client_that_asks_for_much_time_does_not_keep_its_place_for_it() {
    let start = Instant::now();
    let long = Terms { timeout: Duration::from_secs(255), ..terms(512, 1) };
    let (mut transfer, _) = Transfer::new(9000, long, true, start);
    assert_eq!(transfer.deadline() - start, PATIENCE);
    assert_eq!(transfer.tick(transfer.deadline()), Step::End(End::Silent));
}

#[test]
fn whoever_has_all_of_it_may_leave_without_a_word() {
    let now = Instant::now();
    let (mut transfer, _) = Transfer::new(600, terms(512, 1), false, now);
    assert_eq!(transfer.gone(), End::Silent, "one block is under way");
    assert_eq!(transfer.hear(&Reply::Ack(1), now), blocks(2, 1));
    assert_eq!(transfer.gone(), End::Done);
    let end = std::iter::repeat_with(|| transfer.tick(transfer.deadline())).nth(4);
    assert_eq!(end, Some(Step::End(End::Done)));
}

#[test]
fn an_error_of_the_client_ends_it_and_at_first_it_only_wanted_the_size() {
    let now = Instant::now();
    let error = |code| Reply::Error(code, "User aborted the transfer".to_owned());
    let begin = |answers| Transfer::new(9000, terms(512, 1), answers, now).0;
    assert_eq!(begin(true).hear(&error(8), now), Step::End(End::Probe));
    assert_eq!(begin(false).hear(&error(0), now), Step::End(End::Probe));
    assert!(matches!(begin(true).hear(&error(3), now), Step::End(End::GaveUp { code: 3, .. })));
    let mut later = begin(false);
    later.hear(&Reply::Ack(1), now);
    assert!(matches!(later.hear(&error(0), now), Step::End(End::GaveUp { code: 0, .. })));
    assert_eq!(later.taken(), 512);
}

#[test]
fn numbers_go_on_after_65535_with_0_or_with_1() {
    let now = Instant::now();
    for (rollover, after) in [(0, [65535, 0, 1]), (1, [65535, 1, 2])] {
        let terms = Terms { rollover, ..terms(8, 3) };
        let (mut transfer, _) = Transfer::new(8 * 200_000, terms, false, now);
        assert_eq!([65535, 65536, 65537].map(|block| transfer.number(block)), after);
        let mut acked = 0;
        while acked + 3 < 200_001 {
            acked += 3;
            let step = transfer.hear(&Reply::Ack(transfer.number(acked)), now);
            assert!(matches!(step, Step::Send(Burst::Blocks { first, .. }) if first == acked + 1));
        }
        assert_eq!(transfer.hear(&Reply::Ack(transfer.number(200_001)), now), Step::End(End::Done));
    }
}
