//! Why a machine that runs has no node, in the words of its console.
//!
//! Source: kubeadm cmd/kubeadm/app/cmd/phases/workflow/runner.go ("error execution phase"); cloud-init
//! cloudinit/config/modules.py ("Failed to run module", "Running module ... failed"), cloudinit/util.py ("Failed loading yaml").

/// Longest reason, in characters: it goes into conditions and lists.
const REASON_MAX_CHARS: usize = 1000;
/// How much of a console is looked at, from its end: a boot ends there.
pub const CONSOLE_MAX_BYTES: usize = 64 * 1024;

/// What hollow machines print, and a user's own commands may: the rest of the line is the reason.
const MARKER: &str = "boot failed: ";
/// kubeadm's last word.
const KUBEADM: &str = "error execution phase ";
/// cloud-init's, of which the whole line is the reason. Each line must hold all words of one row.
const CLOUD_INIT: [&[&str]; 5] = [
    &["Failed to run module scripts"],
    &["Running module scripts", " failed"],
    &["Failed loading yaml blob"],
    &["Failed at merging in cloud config part"],
    &["Unhandled non-multipart", "userdata"],
];
/// After one of these nothing that was printed before counts.
const SUCCESS: [&str; 2] =
    ["Your Kubernetes control-plane has initialized successfully!", "This node has joined the cluster"];
/// kubeadm lists what it did not like before it gives up.
const PREFLIGHT: &str = "[ERROR ";

/// Why the boot that a console tells of failed; `None` if it does not say that it did.
pub fn boot_failure(console: &str) -> Option<String> {
    let start = console.ceil_char_boundary(console.len().saturating_sub(CONSOLE_MAX_BYTES));
    let (mut marked, mut kubeadm, mut cloud_init) = (None, None, None);
    let mut preflight: Vec<String> = Vec::new();
    for line in console[start..].lines().map(plain) {
        if SUCCESS.iter().any(|text| line.contains(text)) {
            (marked, kubeadm, cloud_init) = (None, None, None);
            preflight.clear();
        } else if let Some((_, why)) = line.split_once(MARKER) {
            marked = Some(why.trim().to_owned());
        } else if let Some(at) = line.find(KUBEADM) {
            kubeadm = Some(line[at..].trim().to_owned());
            preflight.clear();
        } else if let Some(at) = line.find(PREFLIGHT) {
            preflight.push(line[at..].trim().to_owned());
        } else if CLOUD_INIT.iter().any(|words| words.iter().all(|word| line.contains(word))) {
            cloud_init = Some(line.trim().to_owned());
        }
    }
    let kubeadm =
        kubeadm.map(|line| if preflight.is_empty() { line } else { format!("{line} {}", preflight.join("; ")) });
    // cloud-init only knows that a script failed: kubeadm says why.
    let reason = marked.or(kubeadm).or(cloud_init).filter(|reason| !reason.is_empty())?;
    if reason.chars().count() <= REASON_MAX_CHARS {
        return Some(reason);
    }
    let mut cut: String = reason.chars().take(REASON_MAX_CHARS - 1).collect();
    cut.push('…');
    Some(cut)
}

/// The line without what a terminal would act upon: escape sequences and control characters.
fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == '\u{1b}' {
            // ECMA-48 control sequence: ESC [ parameters, ended by a letter.
            if letters.next_if_eq(&'[').is_some() {
                while letters.next().is_some_and(|parameter| !('\u{40}'..='\u{7e}').contains(&parameter)) {}
            }
        } else if letter == '\t' {
            text.push(' ');
        } else if !letter.is_control() {
            text.push(letter);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_line_is_the_reason() {
        let console = "cloud-init: user data read\n[kubeadm] no\nboot failed: error execution phase: [kubeadm] no\n";
        assert_eq!(boot_failure(console).as_deref(), Some("error execution phase: [kubeadm] no"));
    }

    #[test]
    fn kubeadm_says_more_than_cloud_init() {
        let console = "\
            [   41.100] cloud-init[912]: [preflight] Running pre-flight checks\n\
            [   41.900] cloud-init[912]: error execution phase preflight: [preflight] Some fatal errors occurred:\n\
            [   41.901] cloud-init[912]: \t[ERROR Swap]: running with swap on is not supported\n\
            [   41.901] cloud-init[912]: \t[ERROR NumCPU]: the number of available CPUs 1 is less than the required 2\n\
            [   41.902] cloud-init[912]: To see the stack trace of this error execute with --v=5 or higher\n\
            [   42.000] cloud-init[912]: 2026-01-01 - cc_scripts_user.py[WARNING]: Failed to run module scripts_user (scripts in /var/lib)\n";
        assert_eq!(
            boot_failure(console).unwrap(),
            "error execution phase preflight: [preflight] Some fatal errors occurred: [ERROR Swap]: running with swap on \
             is not supported; [ERROR NumCPU]: the number of available CPUs 1 is less than the required 2"
        );
    }

    #[test]
    fn cloud_init_alone_is_quoted() {
        for line in [
            "cc_scripts_user.py[WARNING]: Failed to run module scripts-user (scripts in /var/lib/cloud)",
            "util.py[WARNING]: Running module scripts_user (<module 'cc_scripts_user'>) failed",
            "util.py[WARNING]: Failed loading yaml blob. Invalid format at line 3 column 1",
            "__init__.py[WARNING]: Unhandled non-multipart (text/x-not-multipart) userdata: 'b'hello'...'",
        ] {
            assert_eq!(boot_failure(&format!("Linux version 6.8\n{line}\nlogin: ")).as_deref(), Some(line));
        }
    }

    #[test]
    fn a_console_that_tells_of_no_failure_or_of_one_that_was_overcome_gives_none() {
        for console in [
            "",
            "login: ",
            "cloud-init: user data read\ncouldn't reach the API server at 10.0.0.1:6443",
            "boot failed: ",
            "error execution phase preflight: x\nThis node has joined the cluster:\n",
            "boot failed: x\nYour Kubernetes control-plane has initialized successfully!\n",
        ] {
            assert_eq!(boot_failure(console), None, "{console}");
        }
    }

    #[test]
    fn what_a_terminal_would_act_upon_is_left_out() {
        let console = "\u{1b}[0;1;31mboot failed: bad\u{1b}[0m \u{7}token\u{1b}\r\n";
        assert_eq!(boot_failure(console).as_deref(), Some("bad token"));
    }

    #[test]
    fn a_reason_and_a_console_have_their_limits() {
        let exact = "x".repeat(REASON_MAX_CHARS);
        assert_eq!(boot_failure(&format!("boot failed: {exact}")), Some(exact));
        let long = boot_failure(&format!("boot failed: {}", "é".repeat(REASON_MAX_CHARS + 1))).unwrap();
        assert_eq!((long.chars().count(), long.ends_with('…')), (REASON_MAX_CHARS, true));
        let marker = "boot failed: early\n";
        let filler = "é".repeat((CONSOLE_MAX_BYTES - marker.len()) / 2);
        assert!(boot_failure(&format!("{marker}{filler}")).is_some());
        assert_eq!(boot_failure(&format!("{marker}{filler}éé")), None);
    }
}
