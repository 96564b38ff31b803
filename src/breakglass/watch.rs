//! What changes under the lane while it runs?
//!
//! One thread looks at files, so that the lane's own never touches a disk: the deny list every second; certificate, key
//! and client CA as well, taken over once a change has settled and is good, else the old ones stay and it is said; and
//! once a minute how long certificates are still good. It is the only one that follows them: the thread that follows
//! everybody else's files may hang with one of those. It also ends grants whose time is over and keeps them over a restart.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use super::arming::Kept;
use super::common::Common;
use super::deny::{self, DenyList};
use super::expiry::Expiry;
use super::shown::hex;
use super::{Reload, Settings};
use crate::authn::Material;
use crate::clock;

const TICK: Duration = Duration::from_secs(1);
/// Every so many ticks the keys of grants are read.
const GRANT_KEYS_EVERY: u64 = 5;
/// Every so many ticks the ends of certificates are looked at.
const EXPIRY_EVERY: u64 = 60;
/// Bytes of the state file that are believed.
const STATE_BYTES_MAX: u64 = 256 << 10;
/// The state file's name.
const STATE: &str = "break-glass-armed.json";

/// Wakes the thread.
#[derive(Clone)]
pub(super) struct Wake(SyncSender<()>);

impl Wake {
    /// Who is armed has changed.
    pub(super) fn armed(&self) {
        // One waiting is as good as two.
        let _ = self.0.try_send(());
    }
}

/// The bell, and its ear.
pub(super) fn bell() -> (Wake, Receiver<()>) {
    let (sender, receiver) = sync_channel(1);
    (Wake(sender), receiver)
}

/// The thread's own.
pub(super) struct Watch {
    common: Arc<Common>,
    settings: Settings,
    reload: Reload,
    deny_seen: Option<(i64, i64, u64, u64)>,
    deny_failing: bool,
    /// What was looked at last, and what was tried last: a change is read once it stands still.
    files_seen: Option<Vec<u8>>,
    files_tried: Option<Vec<u8>>,
    expiry: Expiry,
    state_failing: bool,
}

impl Watch {
    pub(super) fn new(common: Arc<Common>, settings: Settings, reload: Reload) -> Self {
        let files_seen = fingerprint(&settings);
        Self {
            common,
            settings,
            reload,
            deny_seen: None,
            deny_failing: false,
            files_tried: files_seen.clone(),
            files_seen,
            expiry: Expiry::default(),
            state_failing: false,
        }
    }

    /// Looks until nobody is left who could ring.
    pub(super) fn run(mut self, rung: &Receiver<()>) {
        for tick in 0_u64.. {
            self.look_at_deny_list();
            self.look_at_certificates();
            if tick % GRANT_KEYS_EVERY == 0 {
                self.look_at_grant_keys();
            }
            if tick % EXPIRY_EVERY == 0 {
                self.expiry.look(&self.settings, &self.common, clock::wall());
            }
            if self.common.end_grants(clock::now()) {
                self.keep();
            }
            self.common.tell_figures();
            match rung.recv_timeout(TICK) {
                Ok(()) => self.keep(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// The deny list that is in force at the start.
    pub(super) fn look_at_deny_list(&mut self) {
        let Some(path) = &self.settings.deny_file else { return };
        let seen =
            fs::metadata(path).map(|facts| (facts.mtime(), facts.mtime_nsec(), facts.size(), facts.ino()));
        let read = match seen {
            Ok(seen) if self.deny_seen == Some(seen) => return,
            Ok(seen) => read_bounded(path, deny::FILE_BYTES_MAX).map(|bytes| (Some(seen), bytes)),
            // Nobody was revoked yet. Once there was a list, its absence is a mistake and the list stays.
            Err(error) if error.kind() == ErrorKind::NotFound && self.deny_seen.is_none() => return,
            Err(error) => Err(error),
        };
        match read {
            Ok((seen, bytes)) => {
                let (list, bad) = DenyList::parse(&String::from_utf8_lossy(&bytes));
                for line in bad.iter().take(5) {
                    tracing::error!(file = %path.display(), reason = %line, "break-glass: the deny list has a bad line");
                }
                tracing::info!(file = %path.display(), certificates = list.len(), "break-glass: deny list read");
                (self.deny_seen, self.deny_failing) = (seen, false);
                self.common.deny(list);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.deny_failing, true) {
                    tracing::error!(
                        file = %path.display(),
                        %error,
                        "break-glass: the deny list cannot be read; the last one stays in force"
                    );
                    self.common.metrics.reload_failed("deny_list");
                }
            }
        }
    }

    fn look_at_certificates(&mut self) {
        let now = fingerprint(&self.settings);
        let still = now == self.files_seen;
        self.files_seen.clone_from(&now);
        if now.is_none() || !still || now == self.files_tried {
            return;
        }
        // Tried once for each content: a half-written pair is tried again when it is whole.
        self.files_tried = now;
        let read = (self.reload)();
        (self.common.reloaded)(read.is_ok());
        match read {
            Ok(()) => tracing::info!("break-glass: certificate, key and client CA were read anew"),
            Err(error) => {
                tracing::error!(%error, "break-glass: the new files cannot be used; the old ones stay in force");
            }
        }
    }

    fn look_at_grant_keys(&self) {
        if let Some(why) = self.common.grants.look() {
            tracing::error!(
                why,
                "break-glass: the keys of grants cannot be used; the last ones stay in force"
            );
            self.common.metrics.reload_failed("grant_keys");
        }
    }

    /// Keeps who is armed for the next start.
    fn keep(&mut self) {
        let Some(folder) = &self.settings.state_folder else { return };
        let grants = self.common.keep(clock::now(), clock::wall());
        match write(folder, grants) {
            Ok(()) => self.state_failing = false,
            Err(error) => {
                if !std::mem::replace(&mut self.state_failing, true) {
                    tracing::error!(
                        folder = %folder.display(),
                        %error,
                        "break-glass: who is armed cannot be kept; it holds, but a restart disarms everybody"
                    );
                    self.common.metrics.reload_failed("armed");
                }
            }
        }
    }
}

/// Changes when one of the files does; `None` while one cannot be read.
fn fingerprint(settings: &Settings) -> Option<Vec<u8>> {
    let mut context = digest::Context::new(&digest::SHA256);
    for material in [&settings.certificate, &settings.key, &settings.client_ca] {
        let Material::File(path) = material else { continue };
        context.update(&read_bounded(path, 1 << 20).ok()?);
    }
    Some(context.finish().as_ref().to_vec())
}

fn read_bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// What the state file holds. The checksum is against a disk, not against an enemy: whoever can write there can also
/// change the configuration.
#[derive(Serialize, Deserialize)]
struct State {
    version: u32,
    grants: Vec<Kept>,
    sha256: String,
}

fn checksum(grants: &[Kept]) -> io::Result<String> {
    let text = serde_json::to_vec(grants)?;
    Ok(hex(digest::digest(&digest::SHA256, &text).as_ref()))
}

/// Writes a whole new file, then puts it in the old one's place.
pub(super) fn write(folder: &Path, grants: Vec<Kept>) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let new = folder.join(format!("{STATE}.new"));
    if let Err(error) = fs::remove_file(&new)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error);
    }
    let state = State { version: 1, sha256: checksum(&grants)?, grants };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec(&state)?)?;
    file.sync_all()?;
    fs::rename(new, folder.join(STATE))
}

/// Who was armed before the restart; nothing when the file is not intact, which is said.
pub(super) fn read(folder: &Path, now: SystemTime) -> Option<Vec<Kept>> {
    let path = folder.join(STATE);
    let distrust = |why: String| {
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let aside: PathBuf = folder.join(format!("{STATE}.corrupt-{seconds}"));
        // One that cannot be moved is distrusted again next time.
        let _ = fs::rename(&path, &aside);
        tracing::error!(
            file = %path.display(),
            why,
            "break-glass: the file of who is armed is not intact: it was set aside, and nobody is armed"
        );
        None
    };
    let bytes = match read_bounded(&path, STATE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Some(vec![]),
        Err(error) => return distrust(error.to_string()),
    };
    match serde_json::from_slice::<State>(&bytes) {
        Ok(state) if state.version != 1 => distrust(format!("version {} is not known", state.version)),
        Ok(state) if checksum(&state.grants).ok().as_ref() != Some(&state.sha256) => {
            distrust("its checksum does not fit".to_owned())
        }
        Ok(state) => Some(state.grants),
        Err(error) => distrust(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::arming::{Arming, Mode, Person, Wish};
    use super::*;
    use crate::units::Instant;

    fn grants() -> Vec<Kept> {
        let mut arming = Arming::new(Mode::Reasoned);
        let person = Person { user: "ada".into(), fingerprint: "ab".into() };
        let length = Duration::from_secs(600);
        let wish = Wish { reason: "storm".into(), ticket: "INC-1".into(), length, alone: false };
        arming.arm(&person, wish, Instant::ORIGIN).unwrap();
        arming.keep(Instant::ORIGIN, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn an_intact_file_is_believed_and_any_other_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), grants()).unwrap();
        assert_eq!(read(folder.path(), SystemTime::UNIX_EPOCH), Some(grants()));
        let path = folder.path().join(STATE);
        let text = fs::read_to_string(&path).unwrap();
        let too_long = " ".repeat(usize::try_from(STATE_BYTES_MAX).unwrap()) + &text;
        for broken in [
            text.replace("600", "900"),
            text[..text.len() / 2].to_owned(),
            text.replace(":1,", ":2,"),
            too_long,
        ] {
            assert_ne!(broken, text);
            fs::write(&path, broken).unwrap();
            assert_eq!(read(folder.path(), SystemTime::UNIX_EPOCH), None);
            assert!(!path.exists(), "it was set aside");
        }
        assert_eq!(read(folder.path(), SystemTime::UNIX_EPOCH), Some(vec![]), "nobody was ever armed");
    }
}
