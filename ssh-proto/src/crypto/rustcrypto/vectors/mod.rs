//! Vectors too long to stand in the tests that use them.

pub(super) mod mlkem;
#[cfg(any(feature = "rsa", feature = "aws-lc-rs"))]
pub(in crate::crypto) mod rsa;
pub(super) mod sealed;

/// What `ssh-keygen -Y sign -n test` of OpenSSH 9.2 signed for the text `a message to sign`.
pub(in crate::crypto) const SSHSIG_MESSAGE: &[u8] = &hex_literal::hex!(
    "5353485349470000000474657374000000000000000673686135313200000040214ae0124c18e0649c868cc09280259f"
    "8c6e68db897964902a14ef4573d7e601dca861dfe5022fbe030455334aaf71fa5d40718b7c0656d38b6bfc68d6f1884a"
);
