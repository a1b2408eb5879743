use super::*;

const ORIGIN: SocketAddr = address(1);
const SECOND_ORIGIN: SocketAddr = address(2);
const NODE: SocketAddr = address(9);
const GENERATION_OF_X: &str = "d7c7d2ee8e7e8a2c2d5a0dc2b5bf5b1ee33fbd2a7c6ff8d51c6a5d1f0d1c7b0e";

const fn address(n: u8) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, n)), 20_004)
}

fn start(several: bool, times: Option<u32>) -> ManifestStart {
    let retry = Retry { times, longest_wait: Duration::from_secs(8), end: None };
    ManifestStart {
        name: "head".to_owned(),
        several,
        retry,
        allowed: Allowed(vec!["10.0.0.0/24".parse().unwrap()]),
        seed: 1,
    }
}

/// A search whose names were found to be these addresses, and what it does first.
fn search(addresses: &[SocketAddr], times: Option<u32>) -> (ManifestFetch, Vec<Action>, Instant) {
    let (mut fetch, now) = (ManifestFetch::new(start(addresses.len() > 1, times)), Instant::now());
    assert_eq!(actions(&mut fetch, now), [Action::Resolve]);
    found_names(&mut fetch, addresses, now);
    let first = actions(&mut fetch, now);
    (fetch, first, now)
}

fn found_names(fetch: &mut ManifestFetch, addresses: &[SocketAddr], now: Instant) {
    let resolved = Resolved { addresses: addresses.to_vec(), missing: Vec::new() };
    fetch.resolved(Ok(resolved), now);
}

fn actions(fetch: &mut ManifestFetch, now: Instant) -> Vec<Action> {
    std::iter::from_fn(|| fetch.poll(now)).collect()
}

/// The connection that is dialed, and to where.
fn dialed(actions: &[Action]) -> Option<(Conn, SocketAddr)> {
    actions.iter().find_map(|action| match action {
        Action::Dial(conn, address) => Some((*conn, *address)),
        _ => None,
    })
}

/// Answers the question that the origin was asked.
fn answer(
    fetch: &mut ManifestFetch,
    answer: Result<&[u8], CallError>,
    now: Instant,
) -> Vec<Action> {
    let Step::Origin(question) = fetch.step else { panic!("{:?}", fetch.step) };
    fetch.origin_answered(question, answer.map(<[u8]>::to_vec), now);
    actions(fetch, now)
}

const BUSY: CallError = CallError::Refused(Errno::EBUSY);
const NO_SIGNATURE: CallError = CallError::NotXget;

fn result(fetch: &mut ManifestFetch) -> Option<String> {
    let result = fetch.take_result()?;
    Some(match result {
        Ok(found) => String::from_utf8(found.text).unwrap(),
        Err(error) => error.to_string(),
    })
}

#[test]
fn the_manifest_comes_from_the_origin() {
    let (mut fetch, first, now) = search(&[ORIGIN], Some(0));
    assert_eq!(dialed(&first).map(|(_, address)| address), Some(ORIGIN));
    answer(&mut fetch, Err(NO_SIGNATURE), now);
    answer(&mut fetch, Ok(b"text"), now);
    answer(&mut fetch, Err(NO_SIGNATURE), now);
    let found = fetch.take_result().unwrap().unwrap();
    assert_eq!(found.text, b"text");
    assert_eq!((found.signature, found.late), (None, None));
}

#[test]
fn a_signature_that_has_changed_meanwhile_makes_it_read_the_manifest_again() {
    let (mut fetch, _, now) = search(&[ORIGIN], Some(0));
    for reply in [&b"old"[..], b"text", b"new", b"new text", b"new"] {
        assert_eq!(result(&mut fetch), None);
        answer(&mut fetch, Ok(reply), now);
    }
    let found = fetch.take_result().unwrap().unwrap();
    assert_eq!(
        (&found.text[..], found.signature.as_deref()),
        (&b"new text"[..], Some(&b"new"[..]))
    );
}

/// The origin is busy, names a node, and says which generation there is; what comes of it.
fn busy_origin(fetch: &mut ManifestFetch, generation: &str, now: Instant) -> Vec<Action> {
    answer(fetch, Err(NO_SIGNATURE), now);
    is_sent_to(fetch, &[NODE], generation, now)
}

/// The same, of an origin that was asked for the manifest and names these.
fn is_sent_to(
    fetch: &mut ManifestFetch,
    nodes: &[SocketAddr],
    generation: &str,
    now: Instant,
) -> Vec<Action> {
    answer(fetch, Err(BUSY), now);
    let redir: String = nodes.iter().map(|node| format!("{}\n", SourceAddress(*node))).collect();
    answer(fetch, Ok(redir.as_bytes()), now);
    answer(fetch, Ok(format!("{generation} master").as_bytes()), now)
}

#[test]
fn a_node_is_asked_while_the_origin_is_busy() {
    let (mut fetch, _, now) = search(&[ORIGIN], Some(0));
    let generation = blake3::hash(b"text").to_hex();
    let next = busy_origin(&mut fetch, &generation, now);
    assert_eq!(dialed(&next).map(|(_, address)| address), Some(NODE));
    fetch.node_answered(Ok(b"text".to_vec()), now);
    answer(&mut fetch, Err(NO_SIGNATURE), now);
    assert_eq!(result(&mut fetch).as_deref(), Some("text"));
}

#[test]
fn a_manifest_with_another_hash_than_the_origin_says_is_not_taken_from_a_node() {
    let (mut fetch, _, now) = search(&[ORIGIN], Some(0));
    busy_origin(&mut fetch, GENERATION_OF_X, now);
    fetch.node_answered(Ok(b"text".to_vec()), now);
    assert_eq!(result(&mut fetch), None);
    assert!(matches!(fetch.step, Step::Again));
}

#[test]
fn a_node_that_is_silent_is_given_up_and_the_origin_asked_again() {
    let (mut fetch, _, now) = search(&[ORIGIN], Some(0));
    let generation = blake3::hash(b"text").to_hex();
    let (node, _) = dialed(&busy_origin(&mut fetch, &generation, now)).unwrap();
    fetch.connected(node, now);
    assert_eq!(fetch.next_timeout(), Some(now + MIN_NODE_SILENCE));
    let next = actions(&mut fetch, now + MIN_NODE_SILENCE);
    assert!(next.contains(&Action::Close(node)));
    let again = fetch.next_timeout().unwrap();
    assert!(again <= now + MIN_NODE_SILENCE + 2 * AGAIN_FIRST);
    actions(&mut fetch, again);
    assert!(matches!(fetch.step, Step::Origin(Question::Manifest)));
}

#[test]
fn a_host_that_does_not_answer_is_asked_after_others_whatever_ports_it_has() {
    let (mut fetch, _, mut now) = search(&[ORIGIN], Some(0));
    let (node, address) = dialed(&busy_origin(&mut fetch, GENERATION_OF_X, now)).unwrap();
    assert_eq!(address, NODE);
    fetch.closed(node, None, now);
    let hogs = (1..=15).map(|port| SocketAddr::new(NODE.ip(), port));
    let nodes: Vec<SocketAddr> = hogs.chain([SECOND_ORIGIN]).collect();
    now = fetch.next_timeout().unwrap();
    actions(&mut fetch, now);
    let next = is_sent_to(&mut fetch, &nodes, GENERATION_OF_X, now);
    assert_eq!(dialed(&next).map(|(_, address)| address), Some(SECOND_ORIGIN));
}

#[test]
fn a_node_outside_of_the_allowed_networks_is_not_asked() {
    let (mut fetch, _, now) = search(&[ORIGIN], Some(0));
    answer(&mut fetch, Err(NO_SIGNATURE), now);
    answer(&mut fetch, Err(BUSY), now);
    let next = answer(&mut fetch, Ok(b"192.0.2.1!20004\n127.0.0.1!20004\n"), now);
    assert_eq!(dialed(&next), None);
    assert!(matches!(fetch.step, Step::Again));
}

#[test]
fn an_origin_that_is_busy_for_too_long_is_an_error() {
    let (mut fetch, _, now) = search(&[ORIGIN], Some(0));
    answer(&mut fetch, Err(NO_SIGNATURE), now);
    answer(&mut fetch, Err(BUSY), now + REFUSED_FOR);
    assert!(result(&mut fetch).unwrap().contains(&Errno::EBUSY.to_string()));
}

#[test]
fn an_origin_that_is_busy_for_too_long_is_tried_as_often_as_one_that_does_not_answer() {
    let (mut fetch, _, now) = search(&[ORIGIN], Some(5));
    answer(&mut fetch, Err(NO_SIGNATURE), now);
    answer(&mut fetch, Err(BUSY), now + REFUSED_FOR);
    assert_eq!(result(&mut fetch), None);
    assert!(matches!(fetch.step, Step::Retry));
}

#[test]
fn an_origin_that_does_not_answer_is_given_up_for_another() {
    let (mut fetch, first, now) = search(&[ORIGIN, SECOND_ORIGIN], Some(0));
    let (conn, _) = dialed(&first).unwrap();
    let next = actions(&mut fetch, now + CONNECTING);
    assert!(next.contains(&Action::Close(conn)));
    assert_eq!(dialed(&next).map(|(_, address)| address), Some(SECOND_ORIGIN));
    let event = Event::TryingNext(ORIGIN, CallError::TimedOut, SECOND_ORIGIN);
    assert!(next.contains(&Action::Report(event)));
}

#[test]
fn an_origin_that_was_silent_for_too_long_gets_twice_the_time() {
    let (mut fetch, first, mut now) = search(&[ORIGIN], None);
    fetch.connected(dialed(&first).unwrap().0, now);
    actions(&mut fetch, now + SILENCE);
    now = fetch.next_timeout().unwrap();
    actions(&mut fetch, now);
    found_names(&mut fetch, &[ORIGIN], now);
    let again = dialed(&actions(&mut fetch, now)).unwrap().0;
    fetch.connected(again, now);
    assert_eq!(fetch.next_timeout(), Some(now + 2 * SILENCE));
}

#[test]
fn the_one_that_has_answered_comes_first_afterwards() {
    let (mut fetch, first, now) = search(&[ORIGIN, SECOND_ORIGIN], Some(0));
    fetch.closed(dialed(&first).unwrap().0, None, now);
    answer(&mut fetch, Err(NO_SIGNATURE), now);
    answer(&mut fetch, Ok(b"text"), now);
    answer(&mut fetch, Err(NO_SIGNATURE), now);
    let found = fetch.take_result().unwrap().unwrap();
    assert_eq!(found.origin, [SECOND_ORIGIN, ORIGIN]);
}

#[test]
fn names_are_looked_up_again_for_each_retry_and_the_last_failure_is_the_error() {
    let (mut fetch, first, mut now) = search(&[ORIGIN], Some(1));
    fetch.closed(dialed(&first).unwrap().0, Some("connection refused"), now);
    actions(&mut fetch, now);
    now = fetch.next_timeout().unwrap();
    assert_eq!(actions(&mut fetch, now), [Action::Resolve]);
    found_names(&mut fetch, &[SECOND_ORIGIN], now);
    let (conn, address) = dialed(&actions(&mut fetch, now)).unwrap();
    assert_eq!(address, SECOND_ORIGIN);
    fetch.closed(conn, Some("no route to host"), now);
    let error = result(&mut fetch).unwrap();
    assert_eq!(error, "cannot connect to head: no route to host");
}

#[test]
fn a_fetch_that_needed_a_retry_says_why() {
    let (mut fetch, first, now) = search(&[ORIGIN], None);
    fetch.closed(dialed(&first).unwrap().0, Some("connection refused"), now);
    actions(&mut fetch, now);
    let now = fetch.next_timeout().unwrap();
    actions(&mut fetch, now);
    found_names(&mut fetch, &[ORIGIN], now);
    actions(&mut fetch, now);
    answer(&mut fetch, Err(NO_SIGNATURE), now);
    answer(&mut fetch, Ok(b"text"), now);
    answer(&mut fetch, Err(NO_SIGNATURE), now);
    let late = fetch.take_result().unwrap().unwrap().late.unwrap();
    assert!(late.contains("1 failure") && late.contains("connection refused"), "{late}");
}

#[test]
fn a_name_that_is_not_found_is_an_error_unless_retries_have_no_end() {
    let unknown = || Error::Connect { host: "head".into(), why: "no such name".into() };
    for (times, ends) in [(Some(3), true), (None, false)] {
        let mut fetch = ManifestFetch::new(start(false, times));
        fetch.resolved(Err(unknown()), Instant::now());
        assert_eq!(fetch.take_result().is_some(), ends);
    }
}

fn why(several: bool, failures: [CallError; 2]) -> Error {
    let failures: Vec<_> = [ORIGIN, SECOND_ORIGIN].into_iter().zip(failures).collect();
    unanswered(&start(several, None), &failures, &[])
}

#[test]
fn of_several_servers_each_is_named_with_its_reason() {
    let error = why(true, [CallError::Refused(Errno::EIO), CallError::TimedOut]);
    let text = error.to_string();
    assert!(text.contains("10.0.0.1:20004: "), "{text}");
    assert!(text.contains("10.0.0.2:20004: timed out"), "{text}");
    let error = why(false, [CallError::TimedOut, CallError::TimedOut]);
    assert_eq!(error.to_string(), "cannot connect to head: timed out");
}

#[test]
fn only_what_is_wrong_with_all_servers_is_for_good() {
    let too_long = || CallError::TooLong(1);
    assert!(matches!(why(true, [too_long(), CallError::TimedOut]), Error::Connect { .. }));
    assert!(matches!(why(true, [too_long(), too_long()]), Error::Peer { .. }));
}

#[test]
fn a_9p_server_that_is_not_xgets_is_fetched_from_if_nobody_else_answers() {
    let error = why(true, [CallError::NotXget, CallError::TimedOut]);
    assert!(matches!(error, Error::NotXget { .. }));
}
