//! `lbctl cert`: keys, requests, certificates.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Verbs of certificates.
#[derive(Debug, Subcommand)]
pub enum Cert {
    /// Make a private key
    #[command(
        before_help = "Examples:\n  lbctl cert new-key /etc/lb/site.key\n  lbctl cert new-key site.key --type rsa-3072\n"
    )]
    NewKey {
        /// The file to write; mode 0600
        file: PathBuf,
        /// Its kind; ECDSA costs a tenth of RSA in each handshake
        #[arg(long = "type", value_enum, default_value_t = KeyType::EcdsaP256, value_name = "TYPE")]
        kind: KeyType,
        /// Write over a file that is there
        #[arg(long)]
        force: bool,
    },
    /// Make a certificate that signs itself: for tests, and until a real one comes
    #[command(
        before_help = "Examples:\n  lbctl cert self-signed --key site.key --out site.pem --name www.example.com --name 192.0.2.10\n"
    )]
    SelfSigned {
        #[command(flatten)]
        subject: Subject,
        /// How many days it is valid
        #[arg(long, default_value_t = 90, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
    },
    /// Make a signing request (PKCS#10) for an authority
    #[command(
        before_help = "Examples:\n  lbctl cert csr --key site.key --out site.csr --name www.example.com --name '*.example.com'\n"
    )]
    Csr {
        #[command(flatten)]
        subject: Subject,
    },
    /// Take what an authority signed: check it against the key, put the chain in order, keep intermediates
    #[command(
        before_help = "Examples:\n  lbctl cert import --key site.key --out site.pem answer.pem\n  lbctl cert import --key site.key --out site.pem --force renewed.pem intermediates.pem\n"
    )]
    Import {
        /// The private key the request was made with
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The chain to write; intermediates that an older one there has are kept when the answer lacks them
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The signed certificate and its intermediates, PEM or DER
        #[arg(required = true, value_name = "ANSWER")]
        answers: Vec<PathBuf>,
        /// Write over a file that is there
        #[arg(long)]
        force: bool,
    },
    /// The certificates of a configuration, and when they end
    #[command(before_help = "Examples:\n  lbctl cert ls\n  lbctl cert ls ./new.toml -o wide\n")]
    Ls {
        /// The configuration file
        #[arg(env = "LB_CONFIG", default_value = "/etc/lb/lb.toml", value_name = "FILE")]
        file: PathBuf,
    },
    /// What is in a file: names, authority, validity
    #[command(
        before_help = "Examples:\n  lbctl cert show site.pem\n  lbctl cert show site.pem --key site.key      does the key fit?\n"
    )]
    Show {
        /// A certificate or chain, PEM or DER
        file: PathBuf,
        /// Check that this private key fits
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
}

/// What certificates and requests are for.
#[derive(Debug, Args)]
pub struct Subject {
    /// The private key; it is made (ECDSA P-256) when the file is not there
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// The file to write; mode 0600
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// A DNS name, *.DOMAIN or address it is for; the first one is its common name, too
    #[arg(long = "name", required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// Organization
    #[arg(long, value_name = "TEXT")]
    pub organization: Option<String>,
    /// Country, two letters
    #[arg(long, value_name = "CC", value_parser = country)]
    pub country: Option<String>,
    /// Write over a file that is there
    #[arg(long)]
    pub force: bool,
}

/// Kinds of private keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeyType {
    /// ECDSA with P-256: fast, and known to every client
    EcdsaP256,
    /// ECDSA with P-384
    EcdsaP384,
    /// RSA, 2048 bits
    #[value(name = "rsa-2048")]
    Rsa2048,
    /// RSA, 3072 bits
    #[value(name = "rsa-3072")]
    Rsa3072,
    /// RSA, 4096 bits
    #[value(name = "rsa-4096")]
    Rsa4096,
}

fn country(text: &str) -> Result<String, String> {
    let good = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_alphabetic());
    if good { Ok(text.to_ascii_uppercase()) } else { Err("two letters, such as DE".to_owned()) }
}
