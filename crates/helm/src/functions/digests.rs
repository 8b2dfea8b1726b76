//! Sums and passwords that are computed.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use super::State;
use crate::template::{
    Scope,
    error::{Error, Result},
    function::{Args, Function},
    value::Value,
};

/// bcrypt's cost in Go.
const COST: u32 = 10;
/// bcrypt takes no more of a password, and Go refuses longer ones.
const PASSWORD_BYTES_MAX: usize = 72;
/// Hashes for passwords that one run may make: they are slow by design.
pub const HASHES_MAX: usize = 64;

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "adler32sum",
        takes: "s",
        run: |_, args| Ok(adler2::adler32_slice(args.text(0).as_bytes()).to_string().into()),
    },
    Function { name: "bcrypt", takes: "s", run: |scope, args| Ok(bcrypt(scope, args.text(0))?.into()) },
    Function { name: "derivePassword", takes: "ussss", run: derive_password },
    Function {
        name: "htpasswd",
        takes: "ss",
        run: |scope, args| {
            let (user, password) = (args.text(0), args.text(1));
            if user.contains(':') {
                return Ok(format!("invalid username: {user}").into());
            }
            Ok(format!("{user}:{}", bcrypt(scope, password)?).into())
        },
    },
    Function { name: "sha1sum", takes: "s", run: |_, args| Ok(hex(&Sha1::digest(args.text(0))).into()) },
    Function { name: "sha256sum", takes: "s", run: |_, args| Ok(hex(&Sha256::digest(args.text(0))).into()) },
    Function { name: "sha512sum", takes: "s", run: |_, args| Ok(hex(&Sha512::digest(args.text(0))).into()) },
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn count_hash(scope: &mut Scope<'_>) -> Result<()> {
    let state = State::of(scope.run)?;
    state.hashes += 1;
    if state.hashes > HASHES_MAX {
        return Error::limit(format!("the templates make more than {HASHES_MAX} hashes for passwords"));
    }
    Ok(())
}

fn bcrypt(scope: &mut Scope<'_>, password: &str) -> Result<String> {
    const FAILED: &str = "failed to encrypt string with bcrypt";
    if password.len() > PASSWORD_BYTES_MAX {
        return Ok(format!("{FAILED}: bcrypt: password length exceeds {PASSWORD_BYTES_MAX} bytes"));
    }
    count_hash(scope)?;
    let mut salt = [0; 16];
    (State::of(scope.run)?.world.random)(&mut salt);
    match bcrypt::hash_with_salt(password, COST, salt) {
        Ok(parts) => Ok(parts.format_for_version(bcrypt::Version::TwoA)),
        Err(error) => Ok(format!("{FAILED}: {error}")),
    }
}

/// Master Password's templates, and what their letters stand for.
const TEMPLATES: &[(&str, &[&str])] = &[
    ("maximum", &["anoxxxxxxxxxxxxxxxxx", "axxxxxxxxxxxxxxxxxno"]),
    (
        "long",
        &[
            "CvcvnoCvcvCvcv",
            "CvcvCvcvnoCvcv",
            "CvcvCvcvCvcvno",
            "CvccnoCvcvCvcv",
            "CvccCvcvnoCvcv",
            "CvccCvcvCvcvno",
            "CvcvnoCvccCvcv",
            "CvcvCvccnoCvcv",
            "CvcvCvccCvcvno",
            "CvcvnoCvcvCvcc",
            "CvcvCvcvnoCvcc",
            "CvcvCvcvCvccno",
            "CvccnoCvccCvcv",
            "CvccCvccnoCvcv",
            "CvccCvccCvcvno",
            "CvcvnoCvccCvcc",
            "CvcvCvccnoCvcc",
            "CvcvCvccCvccno",
            "CvccnoCvcvCvcc",
            "CvccCvcvnoCvcc",
            "CvccCvcvCvccno",
        ],
    ),
    ("medium", &["CvcnoCvc", "CvcCvcno"]),
    ("short", &["Cvcn"]),
    ("basic", &["aaanaaan", "aannaaan", "aaannaaa"]),
    ("pin", &["nnnn"]),
];
const LETTERS: &[(char, &str)] = &[
    ('V', "AEIOU"),
    ('C', "BCDFGHJKLMNPQRSTVWXYZ"),
    ('v', "aeiou"),
    ('c', "bcdfghjklmnpqrstvwxyz"),
    ('A', "AEIOUBCDFGHJKLMNPQRSTVWXYZ"),
    ('a', "AEIOUaeiouBCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"),
    ('n', "0123456789"),
    ('o', "@&%?,=[]_:-+*$#!'^~;()/."),
    ('x', "AEIOUaeiouBCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz0123456789!@#$%^&*()"),
];
const SEED: &str = "com.lyndir.masterpassword";

/// The algorithm of Master Password (masterpassword.app): counter, kind, password, user, site.
fn derive_password(scope: &mut Scope<'_>, args: Args) -> Result<Value> {
    let Value::Uint64(counter) = args.at(0) else { return Error::call("the counter is no number") };
    let (kind, password, user, site) = (args.text(1), args.text(2), args.text(3), args.text(4));
    let Some((_, templates)) = TEMPLATES.iter().find(|(name, _)| *name == kind) else {
        return Ok(format!("cannot find password template {kind}").into());
    };
    count_hash(scope)?;
    let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes();
    let salt = [SEED.as_bytes(), &length(user), user.as_bytes()].concat();
    let mut key = [0; 64];
    let derived = scrypt::Params::new(15, 8, 2)
        .is_ok_and(|params| scrypt::scrypt(password.as_bytes(), &salt, &params, &mut key).is_ok());
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else { return Error::call("the key has a wrong length") };
    if !derived {
        return Ok(Value::text("failed to derive password"));
    }
    let counter = u32::try_from(*counter).unwrap_or(u32::MAX).to_be_bytes();
    mac.update(&[SEED.as_bytes(), &length(site), site.as_bytes(), &counter].concat());
    let seed = mac.finalize().into_bytes();
    let mut seeds = seed.iter().map(|byte| usize::from(*byte));
    let template = templates[seeds.next().unwrap_or(0) % templates.len()];
    let letter = |(kind, seed): (char, usize)| -> Option<char> {
        let (_, letters) = LETTERS.iter().find(|(known, _)| *known == kind)?;
        letters.chars().nth(seed % letters.len())
    };
    Ok(template.chars().zip(seeds).filter_map(letter).collect::<String>().into())
}
