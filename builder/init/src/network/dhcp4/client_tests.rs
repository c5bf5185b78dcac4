use super::*;

const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 6);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn answer(kind: Kind, address: Ipv4Addr, server: Ipv4Addr) -> Answer {
    Answer {
        kind,
        address,
        server,
        prefix: 24,
        routes: Vec::new(),
        name_servers: Vec::new(),
        time_servers: Vec::new(),
        hostname: None,
        search: Vec::new(),
        mtu: None,
        lease: 800,
        t1: None,
        t2: None,
        message: None,
    }
}

struct Play(Client);

impl Play {
    fn new(known: Option<Ipv4Addr>) -> Self {
        Self(Client::new(known, Random::new(7)))
    }

    fn event(&mut self, now: Duration, event: &Event<'_>) -> Vec<Action> {
        let mut out = Vec::new();
        self.0.step(now, event, &mut out);
        out
    }

    fn hears(&mut self, now: u64, kind: Kind, address: Ipv4Addr) -> Vec<Action> {
        self.event(at(now), &Event::Answer(&answer(kind, address, SERVER)))
    }

    /// Lets the clock run to the next timer.
    fn waits(&mut self) -> (Duration, Vec<Action>) {
        let now = self.0.timer().unwrap();
        (now, self.event(now, &Event::Timer))
    }

    /// Gets an address the long way, by the second 0, and returns with it bound.
    fn bound() -> Self {
        let mut play = Self::new(None);
        play.event(at(0), &Event::LinkUp);
        play.hears(0, Kind::Offer, FIRST);
        play.hears(0, Kind::Ack, FIRST);
        let (_, actions) = play.waits();
        assert!(matches!(actions[..], [Action::Use(_)]), "{actions:?}");
        play
    }
}

fn sent(ask: Ask) -> Vec<Action> {
    vec![Action::Send(ask, None)]
}

#[test]
fn an_address_is_offered_taken_probed_and_used() {
    let mut play = Play::new(None);
    assert_eq!(play.event(at(0), &Event::LinkUp), sent(Ask::Discover { wish: None }));
    let select = Ask::Select { address: FIRST, server: SERVER };
    assert_eq!(play.hears(0, Kind::Offer, FIRST), sent(select));
    // A second offer comes too late, and another server's answer is none.
    assert_eq!(play.hears(0, Kind::Offer, SECOND), []);
    assert_eq!(play.event(at(0), &Event::Answer(&answer(Kind::Nak, FIRST, OTHER))), []);
    assert_eq!(play.hears(0, Kind::Ack, FIRST), [Action::Probe(FIRST)]);
    let (now, actions) = play.waits();
    assert!(now < at(1));
    let [Action::Use(lease)] = &actions[..] else { panic!("{actions:?}") };
    let times = Times { renew: at(400), rebind: at(700), end: at(800) };
    assert_eq!((lease.answer.address, lease.times), (FIRST, Some(times)));
    assert_eq!(play.0.timer(), Some(at(400)));
}

#[test]
fn the_address_of_firmware_is_asked_for_first_and_used_without_a_probe() {
    let mut play = Play::new(Some(FIRST));
    assert_eq!(play.event(at(0), &Event::LinkUp), sent(Ask::Reboot { address: FIRST }));
    let actions = play.hears(0, Kind::Ack, FIRST);
    assert!(matches!(&actions[..], [Action::Use(lease)] if lease.answer.address == FIRST));
}

#[test]
fn without_an_answer_or_with_a_refusal_the_known_address_is_given_up() {
    let mut play = Play::new(Some(FIRST));
    play.event(at(0), &Event::LinkUp);
    let (_, actions) = play.waits();
    assert_eq!(actions, sent(Ask::Reboot { address: FIRST }));
    let (now, actions) = play.waits();
    assert_eq!(actions, sent(Ask::Discover { wish: Some(FIRST) }));
    assert!(now < at(4));

    let mut play = Play::new(Some(FIRST));
    play.event(at(0), &Event::LinkUp);
    assert_eq!(play.hears(0, Kind::Nak, FIRST), sent(Ask::Discover { wish: None }));
}

#[test]
fn questions_are_repeated_later_and_later_and_never_given_up() {
    let mut play = Play::new(None);
    play.event(at(0), &Event::LinkUp);
    let (mut last, mut told) = (at(0), 0);
    let mut waits = Vec::new();
    for _ in 0..12 {
        let (now, actions) = play.waits();
        assert!(actions.contains(&Action::Send(Ask::Discover { wish: None }, None)));
        told += actions.iter().filter(|action| **action == Action::Silence).count();
        waits.push((now - last).as_secs_f64());
        last = now;
    }
    assert_eq!(told, 1);
    for (wait, expected) in waits.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0]) {
        assert!((wait / expected - 1.0).abs() <= 0.1, "{waits:?}");
    }
    // Two machines that start together do not stay together.
    let mut other = Play(Client::new(None, Random::new(8)));
    other.event(at(0), &Event::LinkUp);
    assert_ne!(other.0.timer().unwrap().as_secs_f64(), waits[0]);
}

#[test]
fn an_offer_whose_server_falls_silent_is_given_up() {
    let mut play = Play::new(None);
    play.event(at(0), &Event::LinkUp);
    play.hears(0, Kind::Offer, FIRST);
    let mut actions = Vec::new();
    for _ in 0..TRIES_OF_OFFER {
        actions = play.waits().1;
    }
    assert_eq!(actions, sent(Ask::Discover { wish: None }));
}

#[test]
fn a_lease_is_renewed_with_its_server_then_with_any_and_ends() {
    let mut play = Play::bound();
    let renew = Ask::Renew { address: FIRST };
    let (now, actions) = play.waits();
    assert_eq!((now, actions), (at(400), vec![Action::Send(renew, Some(SERVER))]));
    let mut times = Vec::new();
    let over = loop {
        let (now, actions) = play.waits();
        match &actions[..] {
            [Action::Send(ask, to)] => {
                assert_eq!(*ask, renew);
                assert_eq!(*to, (now < at(700)).then_some(SERVER), "{now:?}");
                times.push(now);
            }
            _ => break (now, actions),
        }
    };
    assert!(times.contains(&at(700)), "{times:?}");
    assert!(times.len() < 12, "{times:?}");
    let discover = Action::Send(Ask::Discover { wish: Some(FIRST) }, None);
    assert_eq!(over, (at(800), vec![Action::Lose(FIRST, Why::Over), discover]));
}

#[test]
fn a_renewed_lease_counts_from_when_it_was_asked_for() {
    let mut play = Play::bound();
    play.waits();
    let actions = play.hears(403, Kind::Ack, FIRST);
    let [Action::Use(lease)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(lease.times.unwrap().renew, at(800));
    assert_eq!(play.0.timer(), Some(at(800)));
}

#[test]
fn a_refusal_while_renewing_ends_the_use_at_once() {
    let mut play = Play::bound();
    play.waits();
    let mut refusal = answer(Kind::Nak, Ipv4Addr::UNSPECIFIED, SERVER);
    refusal.message = Some("wrong network".to_owned());
    let actions = play.event(at(401), &Event::Answer(&refusal));
    let why = Why::Refused(Some("wrong network".to_owned()));
    let discover = Action::Send(Ask::Discover { wish: None }, None);
    assert_eq!(actions, [Action::Lose(FIRST, why), discover]);
}

#[test]
fn servers_that_refuse_what_they_offer_do_not_keep_us_busy() {
    let mut play = Play::new(None);
    play.event(at(0), &Event::LinkUp);
    let mut now = at(0);
    for n in 0..8 {
        let mut offer = answer(Kind::Offer, FIRST, SERVER);
        play.event(now, &Event::Answer(&offer));
        offer.kind = Kind::Nak;
        let actions = play.event(now, &Event::Answer(&offer));
        assert_eq!(actions.is_empty(), n > 0, "only the first time is it tried again at once");
        if n > 0 {
            now = play.waits().0;
        }
    }
    assert!(now > at(100), "{now:?}");
}

#[test]
fn an_address_that_somebody_has_is_declined_and_asked_for_again_after_a_pause() {
    let mut play = Play::new(None);
    play.event(at(0), &Event::LinkUp);
    play.hears(0, Kind::Offer, FIRST);
    play.hears(0, Kind::Ack, FIRST);
    let decline = Action::Send(Ask::Decline { address: FIRST, server: SERVER }, None);
    let actions = play.event(at(0), &Event::Conflict);
    assert_eq!(actions, [decline, Action::Lose(FIRST, Why::Conflict)]);
    let (now, actions) = play.waits();
    assert_eq!(actions, sent(Ask::Discover { wish: None }));
    assert!(now >= at(9), "{now:?}");
    // Once it is in use, that is the other one's fault.
    assert_eq!(Play::bound().event(at(1), &Event::Conflict), []);
}

#[test]
fn a_cable_that_is_plugged_in_again_has_its_lease_checked() {
    let mut play = Play::bound();
    assert_eq!(play.event(at(10), &Event::LinkDown), []);
    assert_eq!(play.event(at(20), &Event::LinkUp), sent(Ask::Reboot { address: FIRST }));
    let (_, actions) = play.waits();
    assert_eq!(actions, sent(Ask::Reboot { address: FIRST }));
    // Nobody answers: the lease is good until its end all the same.
    assert_eq!(play.waits().1, []);
    assert_eq!(play.0.timer(), Some(at(400)));

    let mut play = Play::bound();
    play.event(at(20), &Event::LinkUp);
    let actions = play.hears(20, Kind::Nak, FIRST);
    assert_eq!(actions[0], Action::Lose(FIRST, Why::Refused(None)));
}

#[test]
fn without_a_link_nothing_is_asked() {
    let mut play = Play::new(None);
    play.event(at(0), &Event::LinkUp);
    play.event(at(1), &Event::LinkDown);
    assert_eq!(play.0.timer(), None);
    assert_eq!(play.hears(1, Kind::Offer, FIRST), []);
    assert_eq!(play.event(at(9), &Event::LinkUp), sent(Ask::Discover { wish: None }));
}

#[test]
fn times_that_make_no_sense_are_replaced_by_the_usual_ones() {
    for (length, t1, t2, expected) in [
        (800, None, None, [400, 700, 800]),
        (800, Some(60), Some(90), [60, 90, 800]),
        (800, Some(60), None, [60, 700, 800]),
        (800, Some(900), Some(90), [400, 700, 800]),
        (800, Some(100), Some(50), [100, 700, 800]),
        (800, Some(790), None, [790, 790, 800]),
        (800, Some(0), Some(0), [400, 700, 800]),
        (0, None, None, [5, 9, 10]),
        (1, Some(0), Some(1), [5, 9, 10]),
    ] {
        let mut ack = answer(Kind::Ack, FIRST, SERVER);
        (ack.lease, ack.t1, ack.t2) = (length, t1, t2);
        let times = lease(&ack, at(0)).times.unwrap();
        let [renew, rebind, end] = expected.map(at);
        assert_eq!(times, Times { renew, rebind, end }, "{length} {t1:?} {t2:?}");
    }
    let mut ack = answer(Kind::Ack, FIRST, SERVER);
    ack.lease = FOR_EVER;
    assert_eq!(lease(&ack, at(0)).times, None);
}

#[test]
fn a_lease_for_ever_is_never_renewed() {
    let mut play = Play::new(Some(FIRST));
    play.event(at(0), &Event::LinkUp);
    let mut ack = answer(Kind::Ack, FIRST, SERVER);
    ack.lease = FOR_EVER;
    play.event(at(0), &Event::Answer(&ack));
    assert_eq!(play.0.timer(), None);
}
