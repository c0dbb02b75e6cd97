//! Packets sealed by asyncssh 2.24.1 (over OpenSSL by way of cryptography 50.0.2).
//!
//! Keys are the bytes 00 01 02 …, IVs a0 a1 …, MAC keys 40 41 …. For each combination the packet of
//! sequence number 0x01020304 whose padded part and, for encrypt-and-MAC, length make 16 bytes, and of the
//! packet after it, of 2048 such bytes, the SHA-256. Both have eight bytes 0xee of padding; byte i of the
//! payload is 7i.

use hex_literal::hex;

pub(in super::super) struct Sealed {
    pub(in super::super) cipher: &'static str,
    pub(in super::super) mac: Option<&'static str>,
    pub(in super::super) first: &'static [u8],
    pub(in super::super) second: [u8; 32],
}

pub(in super::super) static SEALED: &[Sealed] = &[
    Sealed {
        cipher: "aes128-gcm@openssh.com",
        mac: None,
        first: &hex!("00000010a2863fb56b95102064965beea8fc5e8ed32ecde37f5eb97323ec3543e90468d4"),
        second: hex!("7c19079acd1efae4d68c34db1aa57a53ddae42f1a1ba5c6ac7dedd9cc678654a"),
    },
    Sealed {
        cipher: "aes256-gcm@openssh.com",
        mac: None,
        first: &hex!("00000010ee187b2350d721958c8b693de9942e30b05ee2bb14dc83e4c752bc5ecdb002f3"),
        second: hex!("86004066bf6ac6134d580604a98b4a45147dcf543220a244a0a1d3556a186536"),
    },
    Sealed {
        cipher: "chacha20-poly1305@openssh.com",
        mac: None,
        first: &hex!("bc79806b9ec21bbcce0d05833a83ca1246aeb49abf43096d8d97d1afb0c5742d0426dde4"),
        second: hex!("e743b9a971975a2fa1e7c44192622e7751571fca1e8dd4b1ea569c79d53ef89b"),
    },
    Sealed {
        cipher: "aes128-ctr",
        mac: Some("hmac-sha2-256-etm@openssh.com"),
        first: &hex!(
            "000000105618d6f0e3012b542e4dd039da497f61a6169f23b8c6aa39a219bab8781e17413e14cb86ac687d75faaf93d8"
            "9db14aae"
        ),
        second: hex!("775c842b95fa4a2227c61efdac3799fde3ddb6953946f7ab54248412df37a8ab"),
    },
    Sealed {
        cipher: "aes128-ctr",
        mac: Some("hmac-sha2-512-etm@openssh.com"),
        first: &hex!(
            "000000105618d6f0e3012b542e4dd039da497f61af92df66e940ba0ea16c606519d3e954c59c0f98e6911d5397d2c9e3"
            "2dfd6356f41d2741d86611322d7c3ac81f61b9f2b6d502dafcc75af66e2fe6e3d46f1fa5"
        ),
        second: hex!("d8d66debca71e14fe93f0b751e9644b8c1690aa45229412b4d467c4115b33dbc"),
    },
    Sealed {
        cipher: "aes128-ctr",
        mac: Some("hmac-sha2-256"),
        first: &hex!(
            "5e18d1f2fe1d0f702e4dd039da497f61df04e4de6a596a2b3fafde420ab6a4e9705ce57677ea7b80fbd4d8746c5421e1"
        ),
        second: hex!("a8ade30286e93cad2716eaa9e5826c273349e5151d37745805c09115c7e1bd30"),
    },
    Sealed {
        cipher: "aes128-ctr",
        mac: Some("hmac-sha2-512"),
        first: &hex!(
            "5e18d1f2fe1d0f702e4dd039da497f6126d9a74ff1c8006c4bb872f5b8cc2b78ce03e1c8f2b84075c36998c209ac32a9"
            "6b10a68b8c6d30d18a60c595ce8d3e97d6a7195eada46b759e7879e34eff4a0c"
        ),
        second: hex!("1cc683d74e9933c1f7217fd8ce6a4904ef95382bbec36423515a2e1ca7d6c9c9"),
    },
    Sealed {
        cipher: "aes256-ctr",
        mac: Some("hmac-sha2-256-etm@openssh.com"),
        first: &hex!(
            "00000010d49f06f363a45f27e1a5066be5e5020ef9f4ced76b9896db812d19a97fca32c5846b726519563521926ce47a"
            "d28a0840"
        ),
        second: hex!("7d8f8063263b3f1b0dfefa8d3a3d5e3d0b10471535c2677f1058d2baf2a2a428"),
    },
    Sealed {
        cipher: "aes256-ctr",
        mac: Some("hmac-sha2-512-etm@openssh.com"),
        first: &hex!(
            "00000010d49f06f363a45f27e1a5066be5e5020e956e07fbb7aec09d10817d09cde7a159488c9ab0257f2fce1f32937e"
            "ec3d51dc72116e4db5a933ff17334b52f47443c375cc2f4593a6cc93f79c214549f6661f"
        ),
        second: hex!("b1771f6d222c0fb372406aa5ac14cf32ee0929236a8255ebc658734b2e64881f"),
    },
    Sealed {
        cipher: "aes256-ctr",
        mac: Some("hmac-sha2-256"),
        first: &hex!(
            "dc9f01f17eb87b03e1a5066be5e5020edf04e4de6a596a2b3fafde420ab6a4e9705ce57677ea7b80fbd4d8746c5421e1"
        ),
        second: hex!("c199c184db32198c59d098d93f88970ff8aacd18ad516cdd6638f1e170a190ae"),
    },
    Sealed {
        cipher: "aes256-ctr",
        mac: Some("hmac-sha2-512"),
        first: &hex!(
            "dc9f01f17eb87b03e1a5066be5e5020e26d9a74ff1c8006c4bb872f5b8cc2b78ce03e1c8f2b84075c36998c209ac32a9"
            "6b10a68b8c6d30d18a60c595ce8d3e97d6a7195eada46b759e7879e34eff4a0c"
        ),
        second: hex!("6770147467f9faf30ed680ad89025ee4ecd8b12e92c232c39081e61ecef25f8e"),
    },
];
