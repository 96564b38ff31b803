//! `spillway help incident`: the one page for three in the morning, without a network.

use std::io::Write;

use super::Ending;

/// The page, as `docs/INCIDENT.md` has it.
const PAGE: &str = include_str!("../../docs/INCIDENT.md");

/// Prints it.
pub fn print(out: &mut dyn Write) -> Ending {
    match write!(out, "{PAGE}").and_then(|()| out.flush()) {
        Ok(()) => Ending::Fine,
        // Its reader has closed the pipe: nobody is left to tell.
        Err(_) => Ending::Failed,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_fits_a_terminal_and_begins_with_the_way_in() {
        assert!(super::PAGE.lines().all(|line| line.chars().count() <= 100));
        assert!(super::PAGE.lines().count() <= 100, "one page");
        assert!(super::PAGE.contains("spillway break-glass test --kubeconfig"));
    }
}
