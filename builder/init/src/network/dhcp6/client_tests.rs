use super::*;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ip(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)
}

fn answer(kind: Kind, addresses: &[u16]) -> Answer {
    Answer {
        kind,
        server: vec![1],
        preference: 0,
        is_rapid: false,
        status: 0,
        addresses: addresses.iter().map(|last| (ip(*last), 100, 200)).collect(),
        t1: 0,
        t2: 0,
        name_servers: Vec::new(),
        time_servers: Vec::new(),
        search: Vec::new(),
        refresh: None,
    }
}

struct Play(Client);

impl Play {
    fn new(mode: Mode) -> (Self, Vec<Action>) {
        let mut play = Self(Client::new(Random::new(7)));
        let actions = play.event(at(0), &Event::Mode(mode));
        (play, actions)
    }

    fn event(&mut self, now: Duration, event: &Event<'_>) -> Vec<Action> {
        let mut out = Vec::new();
        self.0.step(now, event, &mut out);
        out
    }

    fn waits(&mut self) -> (Duration, Vec<Action>) {
        let now = self.0.timer().unwrap();
        (now, self.event(now, &Event::Timer))
    }

    fn bound() -> Self {
        let (mut play, _) = Self::new(Mode::Addresses);
        let mut reply = answer(Kind::Reply, &[5]);
        reply.is_rapid = true;
        let actions = play.event(at(0), &Event::Answer(&reply));
        assert!(matches!(actions[..], [Action::Use(_), Action::Learn(_)]), "{actions:?}");
        play
    }
}

#[test]
fn the_best_offer_of_the_first_second_is_taken() {
    let (mut play, actions) = Play::new(Mode::Addresses);
    assert_eq!(actions, [Action::Send(Ask::Solicit)]);
    let mut better = answer(Kind::Advertise, &[6]);
    better.preference = 9;
    assert_eq!(play.event(at(0), &Event::Answer(&answer(Kind::Advertise, &[5]))), []);
    assert_eq!(play.event(at(0), &Event::Answer(&better)), []);
    assert_eq!(play.event(at(0), &Event::Answer(&answer(Kind::Advertise, &[7]))), []);
    let (now, actions) = play.waits();
    assert_eq!(actions, [Action::Send(Ask::Request)]);
    assert_eq!(play.0.subject(), ([1].as_slice(), vec![ip(6)]));
    let actions = play.event(now, &Event::Answer(&answer(Kind::Reply, &[6])));
    assert!(matches!(&actions[..], [Action::Use(_), Action::Learn(_)]));
}

#[test]
fn an_offer_that_wants_to_be_taken_at_once_is() {
    let (mut play, _) = Play::new(Mode::Addresses);
    let mut offer = answer(Kind::Advertise, &[5]);
    offer.preference = 255;
    assert_eq!(play.event(at(0), &Event::Answer(&offer)), [Action::Send(Ask::Request)]);
    // A server that then gives nothing is asked again, and given up in the end.
    assert_eq!(play.event(at(0), &Event::Answer(&answer(Kind::Reply, &[]))), []);
    for _ in 1..TRIES_OF_REQUEST {
        assert_eq!(play.waits().1, [Action::Send(Ask::Request)]);
    }
    assert_eq!(play.waits().1, [Action::Send(Ask::Solicit)]);
}

#[test]
fn offers_without_addresses_are_no_offers() {
    let (mut play, _) = Play::new(Mode::Addresses);
    let mut refusal = answer(Kind::Advertise, &[5]);
    refusal.status = 2;
    assert_eq!(play.event(at(0), &Event::Answer(&refusal)), []);
    assert_eq!(play.waits().1, [Action::Send(Ask::Solicit)]);
}

#[test]
fn questions_are_repeated_later_and_later() {
    let (mut play, _) = Play::new(Mode::Addresses);
    let mut last = at(0);
    for expected in [1.0_f64, 2.0, 4.0, 8.0, 16.0] {
        let (now, actions) = play.waits();
        assert_eq!(actions, [Action::Send(Ask::Solicit)]);
        // Each wait is twice the last one, which differed by a tenth as well.
        let ratio = (now - last).as_secs_f64() / expected;
        assert!((0.6..1.6).contains(&ratio), "{ratio}");
        last = now;
    }
}

#[test]
fn a_lease_is_renewed_rebound_and_ends() {
    let mut play = Play::bound();
    assert_eq!(play.waits(), (at(50), vec![Action::Send(Ask::Renew)]));
    let mut asked = Vec::new();
    let over = loop {
        let (now, actions) = play.waits();
        match actions[..] {
            [Action::Send(ask)] => asked.push((now, ask)),
            _ => break (now, actions),
        }
    };
    assert!(asked.contains(&(at(80), Ask::Rebind)), "{asked:?}");
    let lost = vec![Action::Lose(vec![ip(5)]), Action::Send(Ask::Solicit)];
    assert_eq!(over, (at(200), lost));
}

#[test]
fn a_renewal_with_another_address_loses_the_old_one() {
    let mut play = Play::bound();
    play.waits();
    let actions = play.event(at(51), &Event::Answer(&answer(Kind::Reply, &[6])));
    assert_eq!(actions[0], Action::Lose(vec![ip(5)]));
    assert!(matches!(actions[1], Action::Use(_)));
    // And a server that knows nothing of it any more makes it begin anew.
    let mut play = Play::bound();
    play.waits();
    let mut refusal = answer(Kind::Reply, &[]);
    refusal.status = 3;
    let actions = play.event(at(51), &Event::Answer(&refusal));
    assert_eq!(actions, [Action::Lose(vec![ip(5)]), Action::Send(Ask::Solicit)]);
}

#[test]
fn information_is_asked_for_again_in_time() {
    let (mut play, actions) = Play::new(Mode::Information);
    assert_eq!(actions, [Action::Send(Ask::Information)]);
    let mut reply = answer(Kind::Reply, &[]);
    reply.refresh = Some(1);
    let actions = play.event(at(0), &Event::Answer(&reply));
    assert!(matches!(actions[..], [Action::Learn(_)]));
    assert_eq!(play.waits(), (at(600), vec![Action::Send(Ask::Information)]));
    // A router that wants addresses as well is heard, one that wants less is not.
    assert_eq!(play.event(at(601), &Event::Mode(Mode::Nothing)), []);
    let actions = play.event(at(601), &Event::Mode(Mode::Addresses));
    assert_eq!(actions, [Action::Send(Ask::Solicit)]);
    assert_eq!(play.event(at(601), &Event::Mode(Mode::Information)), []);
}

#[test]
fn a_cable_that_is_plugged_in_again_has_its_lease_checked() {
    let mut play = Play::bound();
    assert_eq!(play.event(at(20), &Event::LinkUp), [Action::Send(Ask::Rebind)]);
    assert_eq!(play.0.subject().1, [ip(5)]);
}

#[test]
fn times_of_the_server_are_kept_to_and_for_ever_is_for_ever() {
    let mut given = answer(Kind::Reply, &[5]);
    (given.t1, given.t2) = (7, 9);
    assert_eq!(lease(&given, at(0)).times, Some((at(7), at(9))));
    (given.t1, given.t2) = (1, 0);
    assert_eq!(lease(&given, at(0)).times, Some((at(5), at(80))));
    given.addresses = vec![(ip(5), FOR_EVER, FOR_EVER)];
    (given.t1, given.t2) = (0, 0);
    let endless = lease(&given, at(0));
    assert_eq!((endless.times, endless.end), (None, Duration::MAX));
}
