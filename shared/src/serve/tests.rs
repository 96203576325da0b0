mod fixture;
mod http;
mod stdio;
