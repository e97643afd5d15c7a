//! How programs are started and how they end.

use creel_proto::agent::ExecStart;

use crate::host::{Host, argv, ids_of_user, is_root, sh, user};

#[tokio::test]
async fn exit_codes_are_the_programs_own() {
    let (_host, mut session) = Host::with_session().await;
    for code in [0, 3, 255] {
        session.send(&format!("exit-{code}"), sh(&format!("exit {code}"))).await;
        let exit = session.end(&format!("exit-{code}")).await.exit;
        assert_eq!((exit.exit_code, exit.signal, exit.timed_out, exit.error.as_str()), (code, 0, false, ""));
        assert!(exit.max_rss_kib > 0);
    }
}

#[tokio::test]
async fn a_signal_is_told_apart_from_a_code() {
    let (_host, mut session) = Host::with_session().await;
    session.send("killed", sh("kill -9 $$")).await;
    session.send("exited", sh("exit 137")).await;
    let ends = session.ends(&["killed", "exited"]).await;
    assert_eq!((ends["killed"].exit.exit_code, ends["killed"].exit.signal), (137, 9));
    assert!(!ends["killed"].exit.out_of_memory);
    assert_eq!((ends["exited"].exit.exit_code, ends["exited"].exit.signal), (137, 0));
}

#[tokio::test]
async fn cpu_time_of_children_is_counted() {
    let (_host, mut session) = Host::with_session().await;
    let exit = session.exec(sh("sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done'; true")).await.exit;
    assert!(exit.cpu_time_us > 1000, "{exit:?}");
}

#[tokio::test]
async fn a_deadline_kills_the_whole_group() {
    let (host, mut session) = Host::with_session().await;
    let directory = host.writable("work");
    // The inner shell ignores SIGTERM, holds the output, and would leave a file behind.
    let script = "echo before; sh -c 'trap \"\" TERM; sleep 3; touch survived' & wait";
    let cwd = directory.to_str().unwrap().to_owned();
    let ended = session.exec(ExecStart { timeout_seconds: 1, cwd, ..sh(script) }).await;
    assert_eq!((ended.exit.exit_code, ended.exit.timed_out), (124, true));
    assert_eq!(ended.exit.error, "command timed out");
    assert_eq!(ended.stdout(), "before\n");
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    assert!(!directory.join("survived").exists());
}

#[tokio::test]
async fn what_cant_be_started_is_127_with_the_reason() {
    let (_host, mut session) = Host::with_session().await;
    let cases = [
        (argv(&["/no/such/program"]), "failed to start `/no/such/program`: No such file"),
        (argv(&["/etc/passwd"]), "failed to start `/etc/passwd`: Permission denied"),
        (argv(&[]), "argv is empty"),
        (argv(&["a\0b"]), "nul byte"),
        (
            ExecStart { cwd: "/no/such/directory".into(), ..sh("true") },
            "working directory `/no/such/directory`",
        ),
        (ExecStart { env: vec!["=x".into()], ..sh("true") }, "NAME=value"),
        (ExecStart { user: "no-such-user".into(), ..sh("true") }, "user `no-such-user`"),
    ];
    for (number, (request, reason)) in cases.into_iter().enumerate() {
        let id = format!("start-{number}");
        session.send(&id, request).await;
        let exit = session.end(&id).await.exit;
        assert_eq!(exit.exit_code, 127, "{exit:?}");
        assert!(exit.error.contains(reason), "`{}` should say `{reason}`", exit.error);
    }
}

#[tokio::test]
async fn root_is_refused() {
    let (_host, mut session) = Host::with_session().await;
    for (number, user) in ["0", "0:0", "root", "65534:0", "0:65534"].into_iter().enumerate() {
        let id = format!("root-{number}");
        session.send(&id, ExecStart { user: user.into(), ..sh("id") }).await;
        let ended = session.end(&id).await;
        assert_eq!(ended.exit.exit_code, 127);
        assert!(ended.exit.error.contains("never run as root"), "{}", ended.exit.error);
        assert!(ended.stdout.is_empty());
    }
}

#[tokio::test]
async fn a_program_is_the_user_in_every_respect() {
    let (_host, mut session) = Host::with_session().await;
    let ended = session.exec(sh("grep -E '^(Uid|Gid|Groups|Cap(Eff|Prm|Amb))' /proc/self/status")).await;
    let (uid, gid) = ids_of_user();
    assert!(ended.stdout().contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n")), "{}", ended.stdout());
    assert!(ended.stdout().contains(&format!("Gid:\t{gid}\t{gid}\t{gid}\t{gid}\n")), "{}", ended.stdout());
    if is_root() {
        assert!(ended.stdout().contains(&format!("Groups:\t{gid} \n")), "{}", ended.stdout());
        assert!(ended.stdout().contains("CapEff:\t0000000000000000"), "{}", ended.stdout());
    }
}

#[tokio::test]
async fn one_who_is_not_root_cant_become_another() {
    if is_root() {
        return;
    }
    let (_host, mut session) = Host::with_session().await;
    let (uid, gid) = ids_of_user();
    let exit = session.exec(ExecStart { user: format!("{}:{gid}", uid + 1), ..sh("true") }).await.exit;
    assert_eq!(exit.exit_code, 127);
    assert!(exit.error.contains("failed to become user"), "{}", exit.error);
}

#[tokio::test]
async fn nothing_of_the_agent_leaks_into_a_program() {
    let (_host, mut session) = Host::with_session().await;
    // `ls` itself opens the directory as the fourth.
    let ended = session.exec(sh("ls /proc/self/fd | wc -l; readlink /proc/self/fd/0")).await;
    assert_eq!(ended.stdout(), "4\n/dev/null\n");
    session.send("signals", sh("grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status")).await;
    let signals = session.end("signals").await;
    assert!(signals.stdout().contains("SigBlk:\t0000000000000000"), "{}", signals.stdout());
    assert!(signals.stdout().contains("SigIgn:\t0000000000000000"), "{}", signals.stdout());
    session.send("group", sh("ps -o pgid= -p $$ | tr -d ' '; echo $$")).await;
    let group = session.end("group").await;
    let (pgid, pid) = group.stdout().trim().split_once('\n').unwrap();
    assert_eq!(pgid, pid);
}

#[tokio::test]
async fn the_environment_is_seeds_overridden_by_the_request() {
    let (_host, mut session) = Host::with_session().await;
    let plain = session.exec(argv(&["/usr/bin/env"])).await;
    let names: Vec<_> = plain.stdout().lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    let seeds = ["HOME", "LOGNAME", "PATH", "SHELL", "USER", "XDG_CACHE_HOME"];
    let rest: Vec<_> = names.iter().filter(|name| !seeds.contains(name)).collect();
    assert!(rest.iter().all(|name| **name == "XDG_RUNTIME_DIR"), "{names:?}");
    assert!(seeds.iter().all(|seed| names.contains(seed)), "{names:?}");

    let env = ["HOME=/first", "X=a=b", "EMPTY=", "HOME=/last"].map(String::from).to_vec();
    session.send("own", ExecStart { env, ..sh("echo $HOME/$X/${EMPTY-unset}/$XDG_CACHE_HOME") }).await;
    let own = session.end("own").await;
    assert!(own.stdout().starts_with("/last/a=b//"), "{}", own.stdout());
}

#[tokio::test]
async fn path_of_the_request_finds_the_program() {
    let (host, mut session) = Host::with_session().await;
    let directory = host.writable("bin");
    std::os::unix::fs::symlink("/bin/echo", directory.join("only-here")).unwrap();
    let env = vec![format!("PATH={}", directory.display())];
    let ended = session.exec(ExecStart { env, ..argv(&["only-here", "found"]) }).await;
    assert_eq!((ended.stdout(), ended.exit.error.as_str()), ("found\n", ""));
}

#[tokio::test]
async fn the_working_directory_is_the_requests_or_the_root() {
    let (host, mut session) = Host::with_session().await;
    let directory = host.writable("work");
    let cwd = directory.to_str().unwrap().to_owned();
    let ended = session.exec(ExecStart { cwd: cwd.clone(), ..sh("pwd") }).await;
    assert_eq!(ended.stdout(), format!("{cwd}\n"));
    session.send("default", sh("pwd")).await;
    assert_eq!(session.end("default").await.stdout(), "/\n");
}

#[tokio::test]
async fn a_directory_only_root_can_enter_is_refused() {
    if !is_root() {
        return;
    }
    let (host, mut session) = Host::with_session().await;
    let directory = host.writable("secret");
    std::os::unix::fs::chown(&directory, Some(0), Some(0)).unwrap();
    std::fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let cwd = directory.to_str().unwrap().to_owned();
    let exit = session.exec(ExecStart { cwd, user: user(), ..sh("true") }).await.exit;
    assert_eq!(exit.exit_code, 127);
    assert!(exit.error.contains("Permission denied"), "{}", exit.error);
}
