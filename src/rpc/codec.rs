//! How messages become bytes.

use std::marker::PhantomData;

use prost::{Message, bytes::BufMut};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};
use tonic_prost::{ProstCodec, ProstDecoder};

use super::error::malformed;

/// Room for a usual request or answer; a larger one grows it. tonic's own 8 KiB, twice per call, push everything else out of
/// the core's cache.
const BUFFER: usize = 1024;
/// tonic's own default.
const YIELD: usize = 32 * 1024;

/// What is written as a message of the contract.
pub(super) trait Written {
    /// Writes all of it.
    fn write(&self, buffer: &mut impl BufMut);
}

impl<M: Message> Written for M {
    fn write(&self, buffer: &mut impl BufMut) {
        self.encode_raw(buffer);
    }
}

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
    T: Written + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Writer<T>;
    type Decoder = Messages<U>;

    fn encoder(&mut self) -> Self::Encoder {
        Writer(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        Messages(ProstCodec::<U, U>::raw_decoder(BufferSettings::new(BUFFER, YIELD)))
    }
}

/// Writes messages.
#[derive(Debug)]
pub(super) struct Writer<T>(PhantomData<T>);

impl<T: Written> Encoder for Writer<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.write(buffer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, YIELD)
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
