//! x
use std::io::Write;
/// x
#[derive(Debug, clap::Args)]
pub struct Args {}
/// x
pub fn run(
    _args: &Args,
    _out: &mut dyn Write,
    _err: &mut dyn Write,
    _c: crate::config::Colour,
) -> super::Ending {
    super::Ending::Failed
}
