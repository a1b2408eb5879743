use super::*;
use crate::limits::MANY_DEAD;

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 20_004))
}

fn any(candidate: &Candidate) -> bool {
    !candidate.in_use
}

fn host(n: u16) -> SocketAddr {
    SocketAddr::from(([10, 1, (n >> 8) as u8, n as u8], 20_004))
}

/// A node has named these addresses, which are on as many hosts.
fn hears_of(
    candidates: &mut Candidates,
    hosts: impl IntoIterator<Item = u16>,
    from: SocketAddr,
    now: Instant,
) -> usize {
    hosts.into_iter().filter(|n| candidates.hear_of(host(*n), from, now)).count()
}

/// Dials as many as it may, none of which answer; which those were.
fn dials_in_vain(candidates: &mut Candidates, now: Instant) -> Vec<SocketAddr> {
    let mut dialed = Vec::new();
    while let Some(address) = candidates.choose(now, 1, false, any) {
        candidates.dialed(address);
        dialed.push(address);
    }
    for address in &dialed {
        candidates.failed(*address, now);
    }
    dialed
}

#[test]
fn a_node_that_failed_is_dialed_later_each_time() {
    let (mut candidates, now) = (Candidates::new(20_004), Instant::now());
    candidates.learn(address(2));
    assert_eq!(candidates.choose(now, 1, false, any), Some(address(2)));
    candidates.answered(address(2));
    candidates.failed(address(2), now);
    assert_eq!(candidates.choose(now, 1, false, any), None);
    assert_eq!(candidates.next_due(now, any), Some(now + REDIAL));
    candidates.failed(address(2), now + REDIAL);
    assert_eq!(candidates.next_due(now, any), Some(now + REDIAL * 3));
}

#[test]
fn this_node_is_no_candidate() {
    let mut candidates = Candidates::new(20_004);
    candidates.add_own(address(7).ip());
    assert!(!candidates.learn(address(7)));
    assert!(candidates.learn(SocketAddr::new(address(7).ip(), 20_005)), "another on this host");
}

#[test]
fn a_near_node_comes_first_where_that_is_asked_for() {
    let (mut candidates, now) = (Candidates::new(20_004), Instant::now());
    candidates.add_own(address(7).ip());
    let far = SocketAddr::from(([10, 0, 9, 1], 20_004));
    candidates.learn(far);
    candidates.learn(address(2));
    for random in 1..100 {
        assert_eq!(candidates.choose(now, random, true, any), Some(address(2)));
    }
}

#[test]
fn no_more_addresses_are_kept_than_the_limit() {
    let mut candidates = Candidates::new(20_004);
    for port in 1..=2 * MAX_ADDRESSES as u16 {
        candidates.learn(SocketAddr::new(address(9).ip(), port));
    }
    assert_eq!(candidates.len(), MAX_ADDRESSES);
    for n in 0..2 * MAX_ADDRESSES as u16 {
        candidates.hear_of(host(n), address(9), Instant::now());
        candidates.learn(host(1000 + n));
    }
    assert_eq!(candidates.len(), MAX_ADDRESSES);
}

#[test]
fn one_host_names_so_many_addresses_and_leaves_room_for_those_of_others() {
    let (mut candidates, now) = (Candidates::new(20_004), Instant::now());
    assert_eq!(hears_of(&mut candidates, 0..256, address(9), now), MAX_ADDRESSES_OF_ONE);
    assert_eq!(hears_of(&mut candidates, 300..308, address(8), now), 8);
}

#[test]
fn however_many_hosts_name_addresses_one_more_is_heard() {
    let (mut candidates, now) = (Candidates::new(20_004), Instant::now());
    for liar in 0..20 {
        hears_of(&mut candidates, liar * 100..liar * 100 + 100, address(liar as u8), now);
    }
    assert_eq!(candidates.len(), MAX_ADDRESSES);
    assert_eq!(hears_of(&mut candidates, [5000], address(200), now), 1);
    assert_eq!(candidates.len(), MAX_ADDRESSES);
}

#[test]
fn what_the_origin_names_displaces_hearsay_and_not_the_other_way_round() {
    let (mut candidates, now) = (Candidates::new(20_004), Instant::now());
    for liar in 0..8 {
        hears_of(&mut candidates, liar * 100..liar * 100 + 100, address(liar as u8), now);
    }
    let seen = (2000..2000 + MAX_ADDRESSES as u16).filter(|n| candidates.learn(host(*n)));
    assert_eq!(seen.count(), MAX_ADDRESSES);
    assert_eq!(hears_of(&mut candidates, 0..100, address(1), now), 0);
}

#[test]
fn a_host_that_joins_on_a_thousand_ports_leaves_room_for_others() {
    let mut candidates = Candidates::new(20_004);
    for port in 1..=1000 {
        let address = SocketAddr::new(address(9).ip(), port);
        candidates.learn(address);
        candidates.answered(address);
    }
    assert!(candidates.learn(address(2)));
    assert!(candidates.hear_of(address(3), address(2), Instant::now()));
    candidates.dialed(SocketAddr::new(address(9).ip(), 7));
    let next = candidates.choose(Instant::now(), 1, false, any).unwrap();
    assert_ne!(next.ip(), address(9).ip(), "nor is it dialed twice before the others once");
}

#[test]
fn addresses_that_are_named_once_and_dead_are_forgotten() {
    let (mut candidates, now) = (Candidates::new(20_004), Instant::now());
    hears_of(&mut candidates, 0..4, address(9), now);
    assert_eq!(dials_in_vain(&mut candidates, now).len(), 4);
    assert_eq!(candidates.len(), 0);
    assert_eq!(hears_of(&mut candidates, 0..4, address(9), now), 0, "for a while");
    assert_eq!(hears_of(&mut candidates, 0..4, address(9), now + REDIAL), 4);
}

#[test]
fn a_dead_address_is_called_so_often_whoever_names_it() {
    let (mut candidates, mut now) = (Candidates::new(20_004), Instant::now());
    let mut calls = 0;
    for informant in 0..100 {
        hears_of(&mut candidates, [77], address(informant), now);
        calls += dials_in_vain(&mut candidates, now).len();
        now += BAN;
    }
    assert_eq!(calls, MAX_UNANSWERED_CALLS as usize);
    assert!(candidates.learn(host(77)), "the origin is believed");
}

#[test]
fn what_answers_as_no_node_does_is_called_once() {
    let (mut candidates, now) = (Candidates::new(20_004), Instant::now());
    hears_of(&mut candidates, [77], address(9), now);
    candidates.dialed(host(77));
    candidates.avoid(host(77), now + BAN);
    candidates.failed(host(77), now);
    assert_eq!(hears_of(&mut candidates, [77], address(8), now + 2 * BAN), 0);
    assert!(candidates.learn(host(77)));
    assert_eq!(candidates.choose(now, 1, false, any), None, "nor soon, if the origin names it");
}

#[test]
fn a_host_that_names_dead_addresses_is_asked_no_more_and_told_on_once() {
    let (mut candidates, now) = (Candidates::new(20_004), Instant::now());
    let mut told = Vec::new();
    let mut calls = 0;
    for n in 0..1000 {
        candidates.hear_of(host(n), address(9), now);
        while let Some(next) = candidates.choose(now, 1, false, any) {
            candidates.dialed(next);
            calls += 1;
            told.extend(candidates.failed(next, now));
        }
    }
    assert_eq!(calls, MANY_DEAD);
    let last = host(MANY_DEAD as u16 - 1);
    assert_eq!(told, [Misled { by: address(9), dead: MANY_DEAD, last }]);
    assert!(candidates.is_untrusted(address(9).ip()));
    assert_eq!(candidates.len(), 0);
}

#[test]
fn a_host_that_is_dead_each_time_counts_once_against_who_named_it() {
    let (mut candidates, mut now) = (Candidates::new(20_004), Instant::now());
    for _ in 0..MAX_UNANSWERED_CALLS {
        hears_of(&mut candidates, 0..4, address(9), now);
        assert_eq!(dials_in_vain(&mut candidates, now).len(), 4);
        now += BAN;
    }
    assert!(!candidates.is_untrusted(address(9).ip()));
}

#[test]
fn a_node_that_is_joined_on_many_ports_of_one_host_is_trusted_and_that_host_tried_on_a_few() {
    let (mut candidates, now) = (Candidates::new(20_004), Instant::now());
    let mut calls = 0;
    for port in 1..1000 {
        let dead = SocketAddr::new(address(66).ip(), port);
        if !candidates.has_dead_ports(dead.ip()) {
            candidates.hear_of(dead, address(9), now);
        }
        calls += dials_in_vain(&mut candidates, now).len();
    }
    assert_eq!(calls, MAX_DEAD_PORTS);
    assert!(!candidates.is_untrusted(address(9).ip()));
}

#[test]
fn two_hosts_that_named_dead_addresses_leave_half_of_the_connections_to_others() {
    let (mut candidates, now) = (Candidates::new(20_004), Instant::now());
    hears_of(&mut candidates, 0..32, address(9), now);
    hears_of(&mut candidates, 100..132, address(8), now);
    assert_eq!(dials_in_vain(&mut candidates, now).len(), 2 * MAX_UNANSWERED_AT_ONCE);
    while let Some(address) = candidates.choose(now, 1, false, any) {
        candidates.dialed(address);
    }
    let in_use = candidates.known.values().filter(|candidate| candidate.in_use).count();
    assert_eq!(in_use, MAX_UNANSWERED_AT_ONCE);
}

#[test]
fn half_of_the_connections_are_left_to_what_others_have_named() {
    let (mut candidates, now) = (Candidates::new(20_004), Instant::now());
    hears_of(&mut candidates, 0..32, address(9), now);
    candidates.learn(address(2));
    let mut dialed = Vec::new();
    while let Some(address) = candidates.choose(now, 1, false, any) {
        candidates.dialed(address);
        dialed.push(address);
    }
    assert_eq!(dialed.len(), MAX_UNANSWERED_AT_ONCE + 1);
    assert!(dialed.contains(&address(2)));
}

#[test]
fn the_addresses_of_a_host_that_named_dead_ones_come_last() {
    let (mut candidates, now) = (Candidates::new(20_004), Instant::now());
    hears_of(&mut candidates, 0..32, address(9), now);
    dials_in_vain(&mut candidates, now);
    hears_of(&mut candidates, 100..104, address(8), now);
    for random in 1..100 {
        let chosen = candidates.choose(now, random, false, any).unwrap();
        assert!(chosen >= host(100), "{chosen}");
    }
}

#[test]
fn a_node_that_has_answered_is_dialed_again_though_it_failed_since() {
    let (mut candidates, mut now) = (Candidates::new(20_004), Instant::now());
    hears_of(&mut candidates, [7], address(9), now);
    candidates.dialed(host(7));
    candidates.answered(host(7));
    for _ in 0..2 * MAX_UNANSWERED_CALLS {
        assert_eq!(candidates.failed(host(7), now), None);
        now += BAN;
        assert_eq!(candidates.choose(now, 1, false, any), Some(host(7)));
    }
}
