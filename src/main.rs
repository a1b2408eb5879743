//! The xget command.
fn main() {}
