use super::*;

// Made by minisign 0.11, of which the older kind by `minisign -S -l`.

const MANIFEST: &[u8] = b"xget manifest 1\n";
const A: &str = "RWREtj0BI47rNz1eO6cA29KwkopMvwwALS4j0xELTu9jyDY9u7R1wrvm";
const B: &str = "RWR/UDnyyQ8qMzZCd0lj5DmxqAJwMNp/SiRFW1m9qkgiEQJPB1JTleDu";
const ID_A: KeyId = KeyId(0x37EB_8E23_013D_B644);
const ID_B: KeyId = KeyId(0x332A_0FC9_F239_507F);
const BY_A: &str = "untrusted comment: signature from minisign secret key
RUREtj0BI47rN7k7Q53VAajxRmm9IVQvSYIpg6471gDb3LH3HX+oRYKiROFgJV5iKLfZobGfMELawPZoFSQgQ4QMgFF97bXrjAg=
trusted comment: pre
nlM4H+HpsagF4lqmbMbpW4GMzGC4BrcKx5ZTFjuUF2iWR21fstb6ryQdUVtUmXxgpIxwdvLC8ZUd3QpC7wlZDg==
";
const BY_A_OLDER: &str = "untrusted comment: signature from minisign secret key
RWREtj0BI47rNyxz5CItFiO1x/JQc/M8qPv9CA1kqgzH1qgM2+69RMD4nay+ST/0lU6e9fqDoZ+4gRNQR3yvTP/mPNFmhL31Bgg=
trusted comment: leg
nftPuJNa7mdM1Mt31c06nYdZUpe0dUU6QWzzvTXWEU7PfIu8S5CJz/RB/EdEjerbpCesx8MtTlqr/Uh/G3wtAQ==
";
const BY_B: &str = "untrusted comment: signature from minisign secret key
RUR/UDnyyQ8qM6EDnejkgQnlP/JknVzP7u0ISZzUyiuWQa1QIQYa/1nP6Wjn2qZGFLb8GafdtXHgm3j1L2pyHVjOfGg1Xfd6tAs=
trusted comment: timestamp:1795385548\tfile:m\thashed
uaeqhX3JVgTc9lp4pYV55yHcsQp+OnQT7eLJugI5mNUdWcLft1yg3BiItlIKgMCKeqe8P1xRJ8CzejL0ViOdCw==
";

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn keys(texts: &[&str]) -> Trust {
    Trust { keys: texts.iter().map(|text| key(text)).collect(), hash: None }
}

fn pinned(manifest: &[u8]) -> Trust {
    Trust { keys: Vec::new(), hash: Some(blake3::hash(manifest)) }
}

fn check(trust: &Trust, signature: &str) -> Result<Option<KeyId>, Distrust> {
    trust.check(MANIFEST, Some(signature.as_bytes()))
}

#[test]
fn where_nothing_is_asked_anything_will_do() {
    let nothing = Trust::default();
    assert_eq!(nothing.check(MANIFEST, None), Ok(None));
    assert_eq!(check(&nothing, "no signature at all"), Ok(None));
}

#[test]
fn a_manifest_that_the_key_signed_is_believed() {
    assert_eq!(check(&keys(&[A]), BY_A), Ok(Some(ID_A)));
}

#[test]
fn signatures_of_the_older_kind_are_as_good() {
    assert_eq!(check(&keys(&[A]), BY_A_OLDER), Ok(Some(ID_A)));
}

#[test]
fn any_one_of_several_keys_will_do() {
    assert_eq!(check(&keys(&[A, B]), BY_A), Ok(Some(ID_A)));
    assert_eq!(check(&keys(&[A, B]), BY_B), Ok(Some(ID_B)));
}

#[test]
fn another_key_is_told_beside_those_that_are_trusted() {
    let why = check(&keys(&[B]), BY_A).unwrap_err();
    assert_eq!(why, Distrust::OtherKey { by: ID_A, trusted: vec![ID_B] });
    assert_eq!(
        why.to_string(),
        "it is signed with key 37EB8E23013DB644, expected key 332A0FC9F239507F"
    );
}

#[test]
fn a_manifest_without_a_signature_is_not_believed() {
    let why = keys(&[A, B]).check(MANIFEST, None).unwrap_err();
    assert_eq!(why, Distrust::Unsigned(vec![ID_A, ID_B]));
    assert_eq!(
        why.to_string(),
        "it has no signature, expected key 37EB8E23013DB644 or 332A0FC9F239507F"
    );
}

#[test]
fn the_signature_of_another_manifest_is_none_of_this_one() {
    for by_a in [BY_A, BY_A_OLDER] {
        let why = keys(&[A, B]).check(b"xget manifest 2\n", Some(by_a.as_bytes()));
        assert_eq!(why, Err(Distrust::Wrong(ID_A)));
    }
}

#[test]
fn a_signature_whose_trusted_comment_was_changed_is_wrong() {
    let changed = BY_A.replace("comment: pre", "comment: post");
    assert_eq!(check(&keys(&[A]), &changed), Err(Distrust::Wrong(ID_A)));
}

#[test]
fn no_other_change_of_a_signature_makes_it_pass() {
    let signature = BY_A.as_bytes();
    let after_comment = BY_A.find('\n').unwrap() + 1;
    for at in after_comment..signature.len() - 1 {
        let mut changed = signature.to_vec();
        changed[at] ^= 1;
        let why = keys(&[A]).check(MANIFEST, Some(&changed));
        assert!(why.is_err(), "byte {at}");
    }
}

#[test]
fn what_is_no_signature_is_told_to_be_none() {
    let cut = &BY_A[..BY_A.len() - 2];
    for text in ["", "\n", "untrusted comment: x\nRUR\n", cut, A] {
        assert_eq!(check(&keys(&[A]), text), Err(Distrust::Malformed), "{text}");
    }
    assert_eq!(keys(&[A]).check(MANIFEST, Some(b"\xff\n\xff\n")), Err(Distrust::Malformed));
}

#[test]
fn the_pinned_generation_needs_no_signature() {
    assert_eq!(pinned(MANIFEST).check(MANIFEST, None), Ok(None));
}

#[test]
fn another_generation_than_the_pinned_one_is_refused_with_both() {
    let why = pinned(b"something else").check(MANIFEST, Some(BY_A.as_bytes())).unwrap_err();
    let (found, pinned) = (blake3::hash(MANIFEST), blake3::hash(b"something else"));
    assert_eq!(why, Distrust::OtherHash { found, pinned });
    assert!(
        why.to_string().contains(&*found.to_hex()) && why.to_string().contains(&*pinned.to_hex())
    );
}

#[test]
fn with_a_key_and_a_hash_both_must_be_right() {
    let both = Trust { hash: pinned(MANIFEST).hash, ..keys(&[A]) };
    assert_eq!(check(&both, BY_A), Ok(Some(ID_A)));
    assert!(matches!(both.check(MANIFEST, None), Err(Distrust::Unsigned(_))));
    let other = Trust { hash: pinned(b"").hash, ..keys(&[A]) };
    assert!(matches!(check(&other, BY_A), Err(Distrust::OtherHash { .. })));
}

#[test]
fn a_file_may_hold_several_keys() {
    let file = format!("untrusted comment: minisign public key\n{A}\r\n\n# for 2027\n  {B}");
    assert_eq!(Key::parse_file(file.as_bytes()), Ok(vec![key(A), key(B)]));
}

#[test]
fn a_file_in_which_a_key_is_damaged_holds_none() {
    let file = format!("{A}\n{}\n", &B[1..]);
    assert_eq!(Key::parse_file(file.as_bytes()), Err(BadKeys::Line(2)));
    assert_eq!(Key::parse_file(b"# none yet\n"), Err(BadKeys::Empty));
    assert_eq!(Key::parse_file(b"\xff\xfe"), Err(BadKeys::Line(1)));
}

#[test]
fn a_secret_key_or_a_signature_is_no_public_key() {
    for text in ["", "RW", &A[..55], BY_A.lines().nth(1).unwrap()] {
        assert_eq!(Key::parse(text), None, "{text}");
    }
}

#[test]
fn who_chooses_among_keys_cannot_add_one() {
    let (a, b) = ([key(A)], [key(B)]);
    let both = vec![key(A), key(B)];
    assert_eq!(narrowed(Some(a.to_vec()), &b), Err(key(B)));
    assert_eq!(narrowed(Some(both), &b), Ok(b.to_vec()));
    assert_eq!(narrowed(Some(a.to_vec()), &[]), Ok(a.to_vec()));
    assert_eq!(narrowed(None, &b), Ok(b.to_vec()));
    assert_eq!(narrowed(None, &[]), Ok(vec![]));
}
