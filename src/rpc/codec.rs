//! How messages become bytes.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use super::error::malformed;

/// Room for a usual request or answer; a larger one grows it. tonic's own 8 KiB, twice per call, push everything else out of
/// the core's cache.
const BUFFER: usize = 1024;
/// tonic's own default.
const YIELD: usize = 32 * 1024;

/// Protobuf in small buffers.
#[derive(Debug)]
pub(super) struct SmallBuffers<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallBuffers<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallBuffers<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Messages<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(BUFFER, YIELD))
    }

    fn decoder(&mut self) -> Self::Decoder {
        Messages(ProstCodec::<T, U>::raw_decoder(BufferSettings::new(BUFFER, YIELD)))
    }
}

/// Reads messages. What is none is the sender's mistake, where tonic calls it a fault of the service.
#[derive(Debug)]
pub(super) struct Messages<U>(ProstDecoder<U>);

impl<U: Message + Default> Decoder for Messages<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        self.0.decode(buffer).map_err(|status| malformed(status.message()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}
