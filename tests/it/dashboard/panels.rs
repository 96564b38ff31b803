//! Do the panels of the rollout, of newcomers and of the configuration follow what happens, and do their buttons act?
//!
//! The built program with files of its own and a real roll-out of an agent that nobody knows; the browser comes through
//! `spillway dashboard`, one role after the other.

use std::{fs, path::Path};

use tokio::task::JoinHandle;

use super::{axe, browser::Browser, tunnel};
use crate::{
    change::command,
    client::block_on,
    newcomers::{roll_out, stand_with},
};

/// Everybody is new at once, a warning needs little, and there is something to bring into force.
const POLICY: &str = "\
apiVersion: config.spillway.dev/v1alpha1
kind: TrafficPolicy
name: panels
newcomers: { learning: 0s, warnPercent: 1 }
enforcement: { mode: Shadow, steps: [50, 100], stepInterval: 30m }
";
/// The row of the agent.
const AGENT: &str = "[...document.querySelectorAll('#newcomers tbody tr')].find(row => row.innerText.includes('shop:node-agent'))";

fn text_of(id: &str, part: &str) -> String {
    format!("document.querySelector('#{id}')?.innerText.includes({part:?})")
}

/// Opens a link, and waits until it is drawn.
fn open(browser: &mut Browser, link: &str) {
    browser.open("about:blank");
    browser.open(link);
    browser.until("document.querySelector('#newcomers') && document.querySelector('#config')");
}

/// Focuses what a selector finds, and presses Enter, when it is there and shown.
fn press(browser: &mut Browser, found: &str) {
    browser.until(&format!("{found} && getComputedStyle({found}).display !== 'none'"));
    browser.eval(&format!("{found}.focus()"));
    browser.key("Enter");
}

/// Buttons of a kind that the role shows.
fn shown(browser: &mut Browser, which: &str) -> i64 {
    let count = format!(
        "[...document.querySelectorAll('{which}')].filter(button => getComputedStyle(button).display !== 'none').length"
    );
    browser.eval(&count).as_i64().unwrap()
}

#[test]
fn the_panels_follow_a_roll_out_a_rollout_and_a_broken_file_and_their_buttons_act() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, door) = (folder.path().join("admin.sock"), folder.path().join("dashboard.sock"));
    block_on(async {
        let stand = stand_with(folder.path(), POLICY).await;
        let agents = roll_out(&stand).await;
        tokio::task::block_in_place(|| {
            let axe = axe();
            let mut browser = Browser::start();
            browser.size(1280, 900);
            browser.prefer("light");
            looks_on(&mut browser, &door);
            acts(&mut browser, &door, &axe);
            breaks_a_file(&mut browser, (&socket, &door), &axe);
            pulls_the_great_levers(&mut browser, &door, &axe);
            browser.listen();
            // What is left to say once a tunnel has ended, and that a viewer was refused.
            browser.complaints.retain(|complaint| !complaint.contains("\"source\":\"network\""));
            assert_eq!(browser.complaints, Vec::<String>::new());
        });
        agents.iter().for_each(JoinHandle::abort);
    });
}

/// A viewer sees everything and has no button; the server would refuse it, too.
fn looks_on(browser: &mut Browser, door: &Path) {
    let (_tunnel, link, _) = tunnel(door, "viewer");
    open(browser, &link);
    browser.until(&format!("{AGENT}?.innerText.includes('TOO MUCH')"));
    browser.until(&text_of("rollout", "nothing is refused; what would be is counted"));
    browser.until(&text_of("config", "as in the files"));
    assert_eq!(browser.eval("document.getElementById('role').innerText"), "viewer");
    let who = browser.eval("document.getElementById('who').innerText");
    assert!(who.as_str().is_some_and(|who| who.contains("uid ")), "{who}");
    assert_eq!(shown(browser, ".act"), 0, "no button for a viewer");
    // The page's own bearer is not to be had from outside; another link's is.
    let (_tunnel, link, _) = tunnel(door, "viewer");
    let (origin, token) = link.split_once("/#t=").unwrap();
    browser.open("about:blank");
    browser.open(&format!("{origin}/icon.svg"));
    let refused = browser.eval(&format!(
        "(async () => {{ const headers = {{ 'X-Spillway-Act': '1' }}; \
         const session = await (await fetch('/session', {{ method: 'POST', headers, body: JSON.stringify({{ token: '{token}' }}) }})).json(); \
         headers.Authorization = 'Bearer ' + session.bearer; \
         const answer = await fetch('/v1/newcomers/approve', {{ method: 'POST', headers, body: JSON.stringify({{ name: 'shop/node-agent' }}) }}); \
         return answer.status + ' ' + (await answer.json()).code; }})()"
    ));
    assert_eq!(refused, "403 SPW0772");
}

/// An operator approves the agent and starts the rollout, by keyboard.
fn acts(browser: &mut Browser, door: &Path, axe: &Path) {
    let (_tunnel, link, _) = tunnel(door, "operator");
    open(browser, &link);
    browser.until(&format!("{AGENT}?.innerText.includes('TOO MUCH')"));
    assert_eq!(shown(browser, "#levers .act"), 0, "lockdown and the limit are the admin's");
    for (width, height, scheme) in
        [(1280, 900, "light"), (1280, 900, "dark"), (360, 800, "light"), (320, 256, "dark")]
    {
        browser.size(width, height);
        browser.prefer(scheme);
        browser.picture(&format!("panels-{width}-{scheme}"));
        assert!(!browser.overflows(), "{width} px: the page is wider than its window");
        assert_eq!(browser.violations(axe), Vec::<String>::new(), "{width} px, {scheme}");
    }
    browser.size(1280, 900);
    browser.prefer("light");

    press(browser, &format!("{AGENT}?.querySelector('[data-act=lever]')"));
    browser.until("document.getElementById('lever').open && document.activeElement.id === 'lever-why'");
    browser
        .until("document.getElementById('lever-preview').innerText.includes('■ When everywhere it takes')");
    assert_eq!(browser.eval("document.getElementById('lever-yes').disabled"), true, "a reason is needed");
    browser.type_text("INC-481: two at a time");
    browser.key("Shift+Tab");
    browser.until("document.activeElement.id === 'lever-lane'");
    browser.type_text("no higher than w");
    browser.until("document.getElementById('lever-lane').value === 'workload'");
    browser.until("document.getElementById('lever-preview').innerText.includes('no higher than workload') && !document.getElementById('lever-yes').disabled");
    browser.picture("approve-1280-light");
    assert_eq!(browser.violations(axe), Vec::<String>::new(), "the drawer of an approval");
    browser.size(360, 800);
    browser.prefer("dark");
    browser.picture("approve-360-dark");
    assert!(!browser.overflows());
    assert_eq!(browser.violations(axe), Vec::<String>::new(), "the same on a telephone");
    browser.size(1280, 900);
    browser.prefer("light");
    let command = browser.eval("document.getElementById('lever-command').innerText");
    let command = command.as_str().unwrap();
    assert!(
        command.starts_with("spillway newcomers approve shop/node-agent")
            && command.ends_with("--as workload --reason 'INC-481: two at a time'"),
        "{command}"
    );
    browser.eval("document.getElementById('lever-why').focus()");
    browser.key("Enter");
    browser.until("!document.getElementById('lever').open && document.getElementById('toast').innerText.includes('Approve a newcomer: shop/node-agent')");
    browser.until(&format!("!{AGENT}"));
    browser.until(&text_of("timeline", "no higher than workload: INC-481: two at a time (uid "));

    press(browser, "document.querySelector('#rollout [data-act=do]')");
    browser.until("document.getElementById('sure').open");
    assert_eq!(browser.eval("document.getElementById('sure-command').innerText"), "spillway rollout start");
    browser.eval("document.getElementById('sure-yes').focus()");
    browser.key("Enter");
    browser.until(&text_of("rollout", "for 50 % of the identities"));
    browser.until(&text_of("rollout", "● running"));
    press(
        browser,
        "[...document.querySelectorAll('#rollout button')].find(button => button.innerText === 'Pause…')",
    );
    browser.until("document.getElementById('sure').open");
    browser.eval("document.getElementById('sure-yes').focus()");
    browser.key("Enter");
    browser.until(&text_of("rollout", "paused by hand"));
    // What was done can be undone.
    press(browser, "document.getElementById('toast-close')");
}

/// Somebody writes nonsense into the policy's file.
fn breaks_a_file(browser: &mut Browser, (socket, door): (&Path, &Path), axe: &Path) {
    let (_tunnel, link, _) = tunnel(door, "operator");
    open(browser, &link);
    let config = command(&["config", "show", "-o", "json"], Some(socket)).json();
    let files = config["files"].as_array().unwrap();
    let file =
        files.iter().filter_map(|file| file.as_str()).find(|file| file.ends_with("policy.yaml")).unwrap();
    let good = fs::read_to_string(file).unwrap();
    fs::write(file, good.replace("learning: 0s", "learnign: 0s")).unwrap();
    browser.until(&text_of("config", "■ REFUSED"));
    browser.until(
        "/policy.yaml:\\d+:\\d+: error\\[SPW\\d+\\]/.test(document.querySelector('#config').innerText)",
    );
    browser.picture("refused-1280-light");
    assert_eq!(browser.violations(axe), Vec::<String>::new(), "a refused file");
    fs::write(file, good.replace("warnPercent: 1 ", "warnPercent: 2 ")).unwrap();
    browser.until(&text_of("config", "as in the files"));
    browser.until(&text_of("config", "spillway config rollback 1"));
    browser.until("document.querySelectorAll('#config tbody tr').length === 2");
    browser.until("document.querySelector('#policy-2 th').innerText.includes('●')");
    browser.picture("history-1280-light");
}

/// An admin holds the limit and locks down, and lets both go.
fn pulls_the_great_levers(browser: &mut Browser, door: &Path, axe: &Path) {
    let (_tunnel, link, _) = tunnel(door, "admin");
    open(browser, &link);
    press(browser, "document.querySelector('[data-kind=limit]')");
    browser.until("document.getElementById('lever').open && document.getElementById('lever-preview').innerText.includes('seats now')");
    browser.type_text("INC-481");
    browser.eval("document.getElementById('lever-seats').focus()");
    browser.type_text("9999999");
    browser.until("document.getElementById('lever-preview').innerText.includes('■ 9999999 is outside')");
    assert_eq!(browser.eval("document.getElementById('lever-yes').disabled"), true, "it would be refused");
    browser.picture("limit-1280-light");
    browser.eval("document.getElementById('lever-seats').select()");
    let most = browser.eval("document.getElementById('lever-preview').innerText.match(/ to (\\d+)\\./)[1]");
    browser.type_text(most.as_str().unwrap());
    browser.until(&format!("document.getElementById('lever-seats').value === {most} && !document.getElementById('lever-preview').innerText.includes('■') && !document.getElementById('lever-yes').disabled"));
    assert_eq!(browser.violations(axe), Vec::<String>::new(), "the drawer of the limit");
    browser.key("Enter");
    browser.until(&text_of("levers", "Limit held"));

    press(browser, "document.querySelector('[data-kind=lockdown]')");
    browser.until("document.getElementById('lever').open && document.getElementById('lever-preview').innerText.includes('Refuses operators')");
    browser.type_text("INC-481");
    browser.eval("document.getElementById('lever-word').focus()");
    browser.until("document.getElementById('lever-command').innerText === 'spillway lockdown --for 10m --reason INC-481'");
    assert_eq!(
        browser.eval("document.getElementById('lever-yes').disabled"),
        true,
        "it wants the word typed"
    );
    browser.type_text("lockdown");
    browser.until("!document.getElementById('lever-yes').disabled");
    browser.picture("lockdown-1280-light");
    assert_eq!(browser.violations(axe), Vec::<String>::new(), "the drawer of the lockdown");
    browser.key("Enter");
    browser.until("document.querySelector('#verdict .state').innerText.includes('LOCKDOWN')");
    browser.until(&text_of("levers", "Lockdown"));
    // Undo is offered at once; the other is ended in the list.
    press(browser, "document.getElementById('undo')");
    browser.until("!document.querySelector('#verdict .state').innerText.includes('LOCKDOWN')");
    press(browser, "document.querySelector('#levers [data-act=do]')");
    browser.until("document.getElementById('sure').open");
    browser.eval("document.getElementById('sure-yes').focus()");
    browser.key("Enter");
    browser.until(&text_of("levers", "Nothing"));
}
