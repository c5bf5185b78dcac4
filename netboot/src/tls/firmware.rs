//! What UEFI firmware understands of TLS, beside what others do.
//!
//! EDK2 is mostly built without elliptic curves (seen in Debian's OVMF 2022.11). Such firmware offers TLS 1.2 with RSA
//! certificates and finds its keys by Diffie-Hellman over integers (`TLS_DHE_RSA_WITH_AES_*_GCM_*`) or not at all.
//! rustls knows these suites but not how to compute them: here is the group of 2048 bits of RFC 7919 for it. Others
//! never come to it, because they offer curves, and those are preferred.

use std::sync::LazyLock;

use aws_lc_rs::rand;
use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U256, U2048};
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, KeyExchangeAlgorithm, SharedSecret,
    SupportedKxGroup, aws_lc_rs as provider,
};
use rustls::ffdhe_groups::{FFDHE2048, FfdheGroup};
use rustls::{
    CipherSuite, CipherSuiteCommon, Error, NamedGroup, PeerMisbehaved, ProtocolVersion,
    SupportedCipherSuite, Tls12CipherSuite,
};

type Number = FixedMontyForm<{ U2048::LIMBS }>;
type Modulus = FixedMontyParams<{ U2048::LIMBS }>;

/// Returns how to encrypt for everybody who boots: what rustls does by itself, and behind it what firmware needs.
pub(super) fn crypto() -> CryptoProvider {
    let mut crypto = provider::default_provider();
    crypto.cipher_suites.extend(SUITES.iter().copied());
    crypto.kx_groups.push(&Integers);
    crypto
}

/// The suites of rustls with another way to agree on keys.
static SUITES: LazyLock<Vec<SupportedCipherSuite>> = LazyLock::new(|| {
    [
        (
            provider::cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            CipherSuite::TLS_DHE_RSA_WITH_AES_256_GCM_SHA384,
        ),
        (
            provider::cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            CipherSuite::TLS_DHE_RSA_WITH_AES_128_GCM_SHA256,
        ),
    ]
    .into_iter()
    .filter_map(|(like, suite)| {
        let SupportedCipherSuite::Tls12(like) = like else { return None };
        // Once for the whole process.
        let made: &'static Tls12CipherSuite = Box::leak(Box::new(Tls12CipherSuite {
            common: CipherSuiteCommon {
                suite,
                hash_provider: like.common.hash_provider,
                confidentiality_limit: like.common.confidentiality_limit,
            },
            prf_provider: like.prf_provider,
            kx: KeyExchangeAlgorithm::DHE,
            sign: like.sign,
            aead_alg: like.aead_alg,
        }));
        Some(SupportedCipherSuite::Tls12(made))
    })
    .collect()
});

static MODULUS: LazyLock<Option<Modulus>> = LazyLock::new(|| {
    let prime = U2048::from_be_slice(FFDHE2048.p);
    Option::from(Odd::new(prime)).map(Modulus::new_vartime)
});

fn modulus() -> Result<&'static Modulus, Error> {
    MODULUS.as_ref().ok_or_else(|| Error::General("the group has no modulus".to_owned()))
}

/// Diffie-Hellman over the integers modulo a prime of 2048 bits.
#[derive(Debug)]
struct Integers;

impl SupportedKxGroup for Integers {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        // RFC 7919 §5.2: exponents of 225 bits are as strong as this group.
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).map_err(|_| GetRandomFailed)?;
        let secret = U256::from_be_slice(&bytes);
        let public = power(&U2048::from(2_u8), &secret)?;
        Ok(Box::new(Exchange { secret, public }))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        Some(FFDHE2048)
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::FFDHE2048
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_2
    }
}

/// Raises to a power; its time does not depend on the power.
fn power(base: &U2048, exponent: &U256) -> Result<Vec<u8>, Error> {
    let power = Number::new(base, modulus()?).pow(exponent).retrieve();
    let bytes = power.to_be_bytes();
    let bytes: &[u8] = bytes.as_ref();
    Ok(bytes.to_vec())
}

struct Exchange {
    secret: U256,
    public: Vec<u8>,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let bad = || Error::from(PeerMisbehaved::InvalidKeyShare);
        if peer.len() > U2048::BYTES {
            return Err(bad());
        }
        let mut padded = [0; U2048::BYTES];
        padded.get_mut(U2048::BYTES - peer.len()..).ok_or_else(bad)?.copy_from_slice(peer);
        let peer = U2048::from_be_slice(&padded);
        // RFC 7919 §3: 1 < y < p - 1. The rest would give the secret away.
        let last = U2048::from_be_slice(FFDHE2048.p).wrapping_sub(&U2048::ONE);
        if peer <= U2048::ONE || peer >= last {
            return Err(bad());
        }
        Ok(SharedSecret::from(power(&peer, &self.secret)?.as_slice()))
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        Some(FFDHE2048)
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::FFDHE2048
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sides_agree_on_a_secret_that_is_not_the_same_twice() {
        let (a, b) = (Integers.start().unwrap(), Integers.start().unwrap());
        let (of_a, of_b) = (a.pub_key().to_vec(), b.pub_key().to_vec());
        assert_ne!(of_a, of_b);
        assert_eq!(of_a.len(), 256);
        let (one, other) = (a.complete(&of_b).unwrap(), b.complete(&of_a).unwrap());
        assert_eq!(one.secret_bytes(), other.secret_bytes());
        assert_eq!(one.secret_bytes().len(), 256);
    }

    #[test]
    fn keys_that_would_give_the_secret_away_are_refused() {
        let mut last = FFDHE2048.p.to_vec();
        *last.last_mut().unwrap() -= 1;
        for key in [&[][..], &[0], &[1], FFDHE2048.p, &last, &[0xff; 256], &[1; 257]] {
            assert!(Integers.start().unwrap().complete(key).is_err(), "{}", key.len());
        }
    }
}
