//! Encoders that take a body in pieces. They see every byte the node sends, so they are quick rather than thorough: levels
//! and windows are such that an answer costs about as much as its TLS.

use std::io::{self, Write};

use brotli::CompressorWriter;
use flate2::{Compression, write::GzEncoder};
use zstd::stream::{raw::CParameter, write::Encoder as ZstdEncoder};

use crate::control::proxy::http::Coding;

/// zlib's level.
const GZIP_LEVEL: u32 = 4;
/// Brotli's quality and window: 256 KiB, so that an encoder stays below 1 MiB.
const BROTLI_QUALITY: u32 = 4;
const BROTLI_WINDOW_LOG: u32 = 18;
/// Zstandard's level and window: 256 KiB.
const ZSTD_LEVEL: i32 = 3;
const ZSTD_WINDOW_LOG: u32 = 18;

/// An encoder at work: one for each response.
pub struct Encoder(Kind);

enum Kind {
    Gzip(GzEncoder<Vec<u8>>),
    // Its inside is large, and most responses are not compressed by it.
    Br(Box<CompressorWriter<Vec<u8>>>),
    Zstd(ZstdEncoder<'static, Vec<u8>>),
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match &self.0 {
            Kind::Gzip(_) => "gzip",
            Kind::Br(_) => "br",
            Kind::Zstd(_) => "zstd",
        };
        f.debug_tuple("Encoder").field(&name).finish()
    }
}

impl Encoder {
    /// An encoder.
    ///
    /// # Errors
    /// Memory.
    pub fn new(coding: Coding) -> io::Result<Self> {
        Ok(Self(match coding {
            Coding::Gzip => Kind::Gzip(GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL))),
            Coding::Br => {
                Kind::Br(Box::new(CompressorWriter::new(Vec::new(), 8 * 1024, BROTLI_QUALITY, BROTLI_WINDOW_LOG)))
            }
            Coding::Zstd => {
                let mut encoder = ZstdEncoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.set_parameter(CParameter::WindowLog(ZSTD_WINDOW_LOG))?;
                Kind::Zstd(encoder)
            }
        }))
    }

    /// Takes a piece of the body and appends what is ready to `out`. With `flush` that is all of it: to be set when the node
    /// has nothing more for now, so that a client of a slow or endless body sees what there is.
    ///
    /// # Errors
    /// Memory, or a fault of the library: the response cannot go on.
    pub fn push(&mut self, piece: &[u8], flush: bool, out: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.0 {
            Kind::Gzip(encoder) => {
                feed(encoder, piece, flush)?;
                out.append(encoder.get_mut());
            }
            Kind::Br(encoder) => {
                feed(encoder.as_mut(), piece, flush)?;
                out.append(encoder.get_mut());
            }
            Kind::Zstd(encoder) => {
                feed(encoder, piece, flush)?;
                out.append(encoder.get_mut());
            }
        }
        Ok(())
    }

    /// Ends the body and appends the rest.
    ///
    /// # Errors
    /// See [`Self::push`].
    pub fn finish(self, out: &mut Vec<u8>) -> io::Result<()> {
        let mut rest = match self.0 {
            Kind::Gzip(encoder) => encoder.finish()?,
            Kind::Br(encoder) => encoder.into_inner(),
            Kind::Zstd(encoder) => encoder.finish()?,
        };
        out.append(&mut rest);
        Ok(())
    }
}

fn feed(encoder: &mut impl Write, piece: &[u8], flush: bool) -> io::Result<()> {
    encoder.write_all(piece)?;
    if flush { encoder.flush() } else { Ok(()) }
}
