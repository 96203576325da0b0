//! MongoDB: against two stand-ins, since no registry has the real one, and where neither answers as MongoDB does against a server in
//! this process that answers with replies in the shape of MongoDB's documentation.

mod access;
mod cancelling;
mod damage;
mod gate;
mod reads;
mod recorded;
#[path = "../common/server.rs"]
mod server;
mod support;
mod tls;
mod values;
mod wire;
mod writes;
