//! What `proto/carillon/v1` compiles to.
//!
//! **Lives here:** generated code, server and client, and the descriptors for reflection.
//! **Called by:** `grpc`; tests use the client.
//! **Must not know:** anything of ours.
#![expect(
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::missing_errors_doc,
    clippy::too_many_lines,
    reason = "generated code; its comments are in the .proto files"
)]

tonic::include_proto!("carillon.v1");

/// The compiled descriptors, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/carillon.v1.bin"));
