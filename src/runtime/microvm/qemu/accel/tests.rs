use super::*;

#[test]
fn a_device_that_can_t_be_opened_is_told_with_its_remedy() {
    let missing = before_trial(Arch::X86_64, Path::new("/nonexistent/kvm"));
    if Arch::native() == Some(Arch::X86_64) {
        assert!(missing.expect_err("missing").contains("does not exist: load kvm_intel or kvm_amd"));
    }
    let denied = io::ErrorKind::PermissionDenied.into();
    let file = tempfile::NamedTempFile::new().expect("a file");
    let set_mode = |mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(file.path(), permissions).expect("changed");
    };
    set_mode(0o660);
    assert!(cannot_open(file.path(), &denied).contains("may not be opened: join group `"));
    set_mode(0o600);
    assert!(cannot_open(file.path(), &denied).contains("its mode lets no group in"));
}

#[test]
fn groups_are_found_by_number() {
    let groups = "root:x:0:\nkvm:x:107:alice,bob\nbroken\nusers:x:100:";
    assert_eq!(group_name(groups, 107).as_deref(), Some("kvm"));
    assert_eq!(group_name(groups, 10), None);
}

#[test]
fn a_foreign_architecture_is_refused_before_any_trial() {
    let foreign = if Arch::native() == Some(Arch::X86_64) { Arch::Aarch64 } else { Arch::X86_64 };
    let why = before_trial(foreign, Path::new("/dev/null")).expect_err("foreign");
    assert!(why.contains("the host's architecture only"), "{why}");
}

#[tokio::test]
async fn the_whole_proof_is_bounded_and_remembered() {
    let Ok(qemu) = Qemu::find(Arch::X86_64, std::env::var_os("PATH").unwrap_or_default().as_os_str()).await
    else {
        println!("skipped: there is no qemu-system-x86_64");
        return;
    };
    let directory = tempfile::tempdir().expect("a scratch directory");
    let input = ProbeInput { qemu: &qemu, cache_directory: Some(directory.path()), alternative: true };
    let first =
        tokio::time::timeout(std::time::Duration::from_secs(30), prove_kvm(input)).await.expect("bounded");
    println!("{first:?}");
    assert_eq!(prove_kvm(input).await, first);
}
