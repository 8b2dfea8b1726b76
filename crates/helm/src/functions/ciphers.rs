//! Texts that are encrypted with a password: AES-256 in CBC, padded as PKCS #7, the first block random, all in base64.

use aes::Aes256;
use base64::{Engine, engine::general_purpose::STANDARD};
use cbc::{
    Decryptor, Encryptor,
    cipher::{
        BlockModeDecrypt, BlockModeEncrypt, KeyIvInit,
        block_padding::{NoPadding, Pkcs7},
    },
};

use super::{State, encodings};
use crate::template::{
    Scope,
    error::{Error, Result},
    function::{Args, Function},
    value::Value,
};

const BLOCK: usize = 16;

pub const FUNCTIONS: &[Function] = &[
    Function { name: "decryptAES", takes: "ss", run: |_, args| decrypted(args.text(0), args.text(1)) },
    Function { name: "encryptAES", takes: "ss", run: encrypted },
];

/// The password itself, cut or filled with zeros.
fn key(password: &str) -> [u8; 32] {
    let mut key = [0; 32];
    key.iter_mut().zip(password.bytes()).for_each(|(byte, of)| *byte = of);
    key
}

fn encrypted(scope: &mut Scope<'_>, args: Args) -> Result<Value> {
    let plain = args.text(1);
    if plain.is_empty() {
        return Ok(Value::text(""));
    }
    let mut first = [0; BLOCK];
    (State::of(scope.run)?.world.random)(&mut first);
    let cipher = Encryptor::<Aes256>::new(&key(args.text(0)).into(), &first.into());
    let mut bytes = first.to_vec();
    bytes.extend(cipher.encrypt_padded_vec::<Pkcs7>(plain.as_bytes()));
    Ok(STANDARD.encode(bytes).into())
}

/// Where Go's runtime fails, its words are told.
fn decrypted(password: &str, text: &str) -> Result<Value> {
    if text.is_empty() {
        return Ok(Value::text(""));
    }
    let bytes = encodings::base64_bytes(text).or_else(Error::call)?;
    let Some((first, rest)) = bytes.split_first_chunk::<BLOCK>() else {
        return Error::call(format!(
            "runtime error: slice bounds out of range [:{BLOCK}] with capacity {}",
            bytes.len()
        ));
    };
    let cipher = Decryptor::<Aes256>::new(&key(password).into(), &(*first).into());
    let Ok(mut plain) = cipher.decrypt_padded_vec::<NoPadding>(rest) else {
        return Error::call("crypto/cipher: input not full blocks");
    };
    let Some(padding) = plain.last().map(|last| usize::from(*last)) else {
        return Error::call("runtime error: index out of range [-1]");
    };
    match plain.len().checked_sub(padding) {
        Some(length) => plain.truncate(length),
        None => {
            let beyond = padding - plain.len();
            return Error::call(format!("runtime error: slice bounds out of range [:-{beyond}]"));
        }
    }
    encodings::decoded(plain)
}
