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
fn without_a_key_or_a_hash_any_manifest_is_trusted() {
    let nothing = Trust::default();
    assert_eq!(nothing.check(MANIFEST, None), Ok(None));
    assert_eq!(check(&nothing, "no signature at all"), Ok(None));
}

#[test]
fn a_manifest_that_the_key_signed_is_trusted() {
    assert_eq!(check(&keys(&[A]), BY_A), Ok(Some(ID_A)));
}

#[test]
fn a_signature_in_the_older_form_is_accepted() {
    assert_eq!(check(&keys(&[A]), BY_A_OLDER), Ok(Some(ID_A)));
}

#[test]
fn one_of_several_keys_is_enough() {
    assert_eq!(check(&keys(&[A, B]), BY_A), Ok(Some(ID_A)));
    assert_eq!(check(&keys(&[A, B]), BY_B), Ok(Some(ID_B)));
}

#[test]
fn the_error_for_another_key_names_it_and_the_trusted_ones() {
    let why = check(&keys(&[B]), BY_A).unwrap_err();
    assert_eq!(why, Distrust::OtherKey { by: ID_A, trusted: vec![ID_B] });
    assert_eq!(
        why.to_string(),
        "it is signed with key 37EB8E23013DB644, expected key 332A0FC9F239507F"
    );
}

#[test]
fn a_manifest_without_a_signature_is_refused() {
    let why = keys(&[A, B]).check(MANIFEST, None).unwrap_err();
    assert_eq!(why, Distrust::Unsigned(vec![ID_A, ID_B]));
    assert_eq!(
        why.to_string(),
        "it has no signature, expected key 37EB8E23013DB644 or 332A0FC9F239507F"
    );
}

#[test]
fn the_signature_of_another_manifest_is_refused() {
    for by_a in [BY_A, BY_A_OLDER] {
        let why = keys(&[A, B]).check(b"xget manifest 2\n", Some(by_a.as_bytes()));
        assert_eq!(why, Err(Distrust::Wrong(ID_A)));
    }
}

#[test]
fn a_signature_with_a_changed_trusted_comment_is_refused() {
    let changed = BY_A.replace("comment: pre", "comment: post");
    assert_eq!(check(&keys(&[A]), &changed), Err(Distrust::Wrong(ID_A)));
}

#[test]
fn a_signature_with_any_byte_changed_is_refused() {
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
fn text_that_is_not_a_signature_is_reported_as_malformed() {
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
fn the_error_for_another_generation_names_both_hashes() {
    let why = pinned(b"something else").check(MANIFEST, Some(BY_A.as_bytes())).unwrap_err();
    let (found, pinned) = (blake3::hash(MANIFEST), blake3::hash(b"something else"));
    assert_eq!(why, Distrust::OtherHash { found, pinned });
    assert!(
        why.to_string().contains(&*found.to_hex()) && why.to_string().contains(&*pinned.to_hex())
    );
}

#[test]
fn with_a_key_and_a_hash_both_must_match() {
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
fn a_file_with_a_damaged_key_is_refused_with_the_line() {
    let file = format!("{A}\n{}\n", &B[1..]);
    assert_eq!(Key::parse_file(file.as_bytes()), Err(KeyFileError::Line(2)));
    assert_eq!(Key::parse_file(b"# none yet\n"), Err(KeyFileError::Empty));
    assert_eq!(Key::parse_file(b"\xff\xfe"), Err(KeyFileError::Line(1)));
}

#[test]
fn a_secret_key_or_a_signature_is_not_a_public_key() {
    for text in ["", "RW", &A[..55], BY_A.lines().nth(1).unwrap()] {
        assert_eq!(Key::parse(text), None, "{text}");
    }
}

#[test]
fn the_command_line_can_select_built_in_keys_and_not_add_one() {
    let (a, b) = ([key(A)], [key(B)]);
    let both = vec![key(A), key(B)];
    assert_eq!(select_keys(Some(a.to_vec()), &b), Err(key(B)));
    assert_eq!(select_keys(Some(both), &b), Ok(b.to_vec()));
    assert_eq!(select_keys(Some(a.to_vec()), &[]), Ok(a.to_vec()));
    assert_eq!(select_keys(None, &b), Ok(b.to_vec()));
    assert_eq!(select_keys(None, &[]), Ok(vec![]));
}
