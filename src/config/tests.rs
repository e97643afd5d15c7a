use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn environment(euid: u32, variables: &[(&str, &str)]) -> Environment {
    Environment::of(euid, variables.iter().map(|(name, value)| (name.into(), value.into())))
}

fn user() -> Environment {
    environment(1000, &[("HOME", "/home/ada")])
}

/// Loads `text` as the file `creel.toml`, and renders what is wrong with it.
fn load(text: &str, environment: &Environment) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("creel.toml");
    std::fs::write(&path, text).unwrap();
    let place = format!("{}/", directory.path().display());
    Config::load(environment, Some(&path)).map_err(|error| error.to_string().replace(&place, ""))
}

fn load_as_is(text: &str) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("creel.toml"), text).unwrap();
    Config::load(&user(), Some(&directory.path().join("creel.toml")))
}

/// What `creeld --check-config` says of a file and variables.
fn shown(text: &str, environment: &Environment) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("creel.toml");
    std::fs::write(&path, text).unwrap();
    let Err(ConfigError::Invalid(problems)) = Config::load(environment, Some(&path)) else {
        panic!("this is right, or wrong in another way:\n{text}");
    };
    let lines: String = problems.iter().map(Problem::with_line).collect();
    lines.replace(&format!("{}/", directory.path().display()), "")
}

#[test]
fn what_is_said_of_malformed_configurations() {
    let files = [
        ("an unknown section", "[machines]\naccel = \"kvm\""),
        ("an unknown section, like none", "[zebra]\nstripes = 7"),
        ("an unknown key", "[machine]\n  acel = \"kvm\""),
        ("a key of another section", "[machine]\ndefault = \"tiny\""),
        ("an unknown key, like none", "[machine]\nfrobnicate = true"),
        ("a key in no section", "accel = \"kvm\""),
        ("a section that is none", "machine = 3"),
        ("a value that is none of a few", "[machine]\naccel = \"kwm\""),
        ("a value of another type", "[daemon]\nmax_machines = \"64\"\n[qemu]\npath = true"),
        ("a list for one value", "[images]\ndefault = [\"tiny\"]"),
        ("a number out of range", "[daemon]\nmax_machines = 0\n[vsock_ports]\nagent = 4294967295"),
        ("a duration without its unit", "[machine]\nagent_timeout = \"90\""),
        ("a duration that is a number", "[machine]\nagent_timeout = 90"),
        ("a duration in words", "[machine]\nagent_timeout = \"90 seconds\""),
        ("no duration at all", "[machine]\nagent_timeout = \"0s\""),
        ("a longer duration than promises allow", "[machine]\nshutdown_timeout = \"10m\""),
        ("a size in decimal units", "[logs]\nmax_step = \"64MB\""),
        ("a size without its unit", "[logs]\nmax_step = \"64\""),
        ("a size that is a number", "[logs]\nmax_step = 67108864"),
        ("a relative path", "[images]\ndir = \"images\""),
        ("an empty name", "[images]\ndefault = \"\""),
        ("a key twice", "[machine]\naccel = \"kvm\"\naccel = \"tcg\""),
        ("a section twice", "[machine]\naccel = \"kvm\"\n[machine]\nallow_tcg = true"),
        ("a header that is not closed", "[machine\naccel = \"kvm\""),
        ("a text without quotes", "[machine]\naccel = kvm"),
        ("a text that is not closed", "[machine]\naccel = \"kvm\nallow_tcg = true"),
        ("a key without a value", "[machine]\naccel =\nallow_tcg = true"),
        ("a colon for an equals sign", "[machine]\naccel: \"kvm\""),
        ("several at once", "[machine]\naccel = kvm\nalow_tcg = true\n\n[log]\n[run]\ndir = \"run\""),
        ("letters beyond ASCII, and a tab", "# été\n[machine] # ü\n\taccel = \"é\" # ß"),
        ("a long line", &format!("[kit]\ndir = \"{}\"", "a/".repeat(90))),
    ];
    let tell = |(title, text): (&str, &str)| format!("# {title}\n{text}\n---\n{}", shown(text, &user()));
    let mut told: Vec<_> = files.map(tell).into();

    let variables = [
        ("HOME", "/home/ada"),
        ("CREEL_FROB__NICATE", "1"),
        ("CREEL_IMAGES__DIR", "images"),
        ("CREEL_LOGS__MAX_STEP", "lots"),
        ("CREEL_MACHINE__ACEL", "kvm"),
        ("CREEL_machine__accel", "kvm"),
        ("CREEL_DAEMON__MAX_MACHINES", "many"),
        // Not a setting's.
        ("CREEL_LOG", "debug"),
    ];
    let mut environment = environment(1000, &variables);
    environment.creel.insert("CREEL_RUN__DIR".into(), std::ffi::OsString::from_vec(vec![b'/', 0xff]));
    told.push(format!("# variables\n---\n{}", shown("", &environment)));
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_defaults() {
    let text = "[machine]\naccel = \"kvm\"\nagent_timeout = \"30s\"\n[state]\ndir = \"/srv/creel\"";
    let variables = [
        ("HOME", "/home/ada"),
        ("CREEL_MACHINE__ACCEL", "tcg"),
        ("CREEL_IMAGES__DEFAULT", "nixos-x86_64"),
        ("CREEL_CACHE__DIR", "/srv/cache"),
    ];
    let config = load(text, &environment(1000, &variables)).unwrap();
    assert_eq!(config.machine.accel, Accel::Tcg);
    assert_eq!(config.machine.agent_timeout.get(), Duration::from_secs(30));
    assert_eq!(config.machine.shutdown_timeout.get(), Duration::from_secs(10));
    assert_eq!(config.images.default, "nixos-x86_64");
    assert_eq!(config.places.images[0], Path::new("/srv/creel/images"), "follows state.dir");
    assert_eq!(config.places.cache, Path::new("/srv/cache"));
}

#[test]
fn ones_own_file_may_be_missing_but_not_a_named_one() {
    let home = tempfile::tempdir().unwrap();
    let environment = environment(1000, &[("HOME", home.path().to_str().unwrap())]);
    assert_eq!(Config::load(&environment, None).unwrap().machine.accel, Accel::Auto);

    let own = environment.config_file().unwrap();
    assert_eq!(own, home.path().join(".config/creel/creel.toml"));
    std::fs::create_dir_all(own.parent().unwrap()).unwrap();
    std::fs::write(&own, "[machine]\naccel = \"tcg\"").unwrap();
    assert_eq!(Config::load(&environment, None).unwrap().machine.accel, Accel::Tcg);

    let error = Config::load(&environment, Some(Path::new("/nonexistent/creel.toml"))).unwrap_err();
    assert_eq!(error.to_string(), "failed to read the configuration `/nonexistent/creel.toml`");
    let error = Config::load(&environment, Some(Path::new("/dev/zero"))).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }), "{error}");
}

#[test]
fn places_of_root_of_a_user_and_with_xdg() {
    let places = |environment: &Environment| {
        let places = load("", environment)?.places;
        let roots = |roots: &[PathBuf]| {
            roots.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(":")
        };
        Ok::<_, String>(format!(
            "run {}\nstate {}\ncache {}\nimages {}\nkit {}",
            places.run.display(),
            places.state.display(),
            places.cache.display(),
            roots(&places.images),
            roots(&places.kit),
        ))
    };
    let xdg = environment(
        1000,
        &[
            ("HOME", "/home/ada"),
            ("XDG_RUNTIME_DIR", "/run/user/1000"),
            ("XDG_STATE_HOME", "/data/state"),
            ("XDG_CACHE_HOME", "relative/is/ignored"),
        ],
    );
    let root = environment(0, &[("HOME", "/root"), ("XDG_RUNTIME_DIR", "/run/user/0")]);
    insta::assert_snapshot!(places(&root).unwrap(), @"
    run /run/creel
    state /var/lib/creel
    cache /var/lib/creel/cache
    images /var/lib/creel/images:/usr/lib/creel/images
    kit /var/lib/creel/kit:/usr/lib/creel/kit
    ");
    insta::assert_snapshot!(places(&user()).unwrap(), @"
    run /tmp/creel-1000
    state /home/ada/.local/state/creel
    cache /home/ada/.cache/creel
    images /home/ada/.local/state/creel/images:/var/lib/creel/images:/usr/lib/creel/images
    kit /home/ada/.local/state/creel/kit:/var/lib/creel/kit:/usr/lib/creel/kit
    ");
    insta::assert_snapshot!(places(&xdg).unwrap(), @"
    run /run/user/1000/creel
    state /data/state/creel
    cache /home/ada/.cache/creel
    images /data/state/creel/images:/var/lib/creel/images:/usr/lib/creel/images
    kit /data/state/creel/kit:/var/lib/creel/kit:/usr/lib/creel/kit
    ");
    insta::assert_snapshot!(places(&environment(1000, &[])).unwrap_err(), @"there is no directory for creel's state: HOME is not set; set it, or XDG_STATE_HOME, or `state.dir`");
    let both = [("CREEL_STATE__DIR", "/s"), ("CREEL_CACHE__DIR", "/c")];
    assert!(places(&environment(1000, &both)).is_ok(), "no HOME is needed when both are set");

    assert_eq!(root.config_file().unwrap(), Path::new("/etc/creel/creel.toml"));
    assert_eq!(
        environment(1000, &[("XDG_CONFIG_HOME", "/cfg")]).config_file().unwrap(),
        Path::new("/cfg/creel/creel.toml")
    );
    assert_eq!(environment(1000, &[]).config_file(), None);
}

#[test]
fn the_printed_configuration_says_the_same() {
    let config = load("", &user()).unwrap();
    let printed = config.render_toml();
    insta::assert_snapshot!(printed);
    let again = load(&printed, &environment(1000, &[("HOME", "/elsewhere")])).unwrap();
    assert_eq!(again.places, config.places);
    assert_eq!(again.render_toml(), printed);
}

#[test]
fn a_value_with_quotes_and_newlines_survives_printing() {
    let odd = "/srv/a \"b\"\n\\c";
    let config = load("", &environment(1000, &[("HOME", "/h"), ("CREEL_STATE__DIR", odd)])).unwrap();
    assert_eq!(load(&config.render_toml(), &user()).unwrap().places.state, Path::new(odd));
}

proptest! {
    #[test]
    fn durations_and_sizes_read_back(milliseconds in 1_u64..=31_536_000_000, bytes in 1_u64.., shift in 0_u32..50) {
        let parse = |text: &str| text.parse::<Period>();
        let period = parse(&format!("{milliseconds}ms")).unwrap();
        prop_assert_eq!(period.get(), Duration::from_millis(milliseconds));
        prop_assert_eq!(parse(&period.to_string()).unwrap(), period);
        let size: ByteSize = format!("{}B", (bytes >> shift << shift).max(1)).parse().unwrap();
        prop_assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size);
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,12}|[0-9dhmsKMGiB]{0,24}|([a\\[\\]=\"é\t]|\n){0,24}|[é=]{90,120}") {
        let _ = (text.parse::<Period>(), text.parse::<ByteSize>());
        if let Err(ConfigError::Invalid(problems)) = load_as_is(&text) {
            problems.iter().map(Problem::with_line).for_each(drop);
        }
    }
}

#[test]
fn durations_and_sizes_are_written_as_people_do() {
    let period =
        |text: &str| text.parse::<Period>().map(|period| (period.get().as_millis(), period.to_string()));
    assert_eq!(period("1h30m").unwrap(), (5_400_000, "1h30m".to_owned()));
    assert_eq!(period("90s").unwrap(), (90_000, "1m30s".to_owned()));
    assert_eq!(period("1500ms").unwrap(), (1500, "1s500ms".to_owned()));
    for wrong in ["", "s", "1x", "30m1h", "1m1m", "-1s", "1.5h", "366d", "99999999999999999999s", "90", "0ms"]
    {
        assert!(period(wrong).is_err(), "{wrong}");
    }
    let size = |text: &str| text.parse::<ByteSize>().map(|size| (size.bytes(), size.to_string()));
    assert_eq!(size("64MiB").unwrap(), (64 << 20, "64MiB".to_owned()));
    assert_eq!(size("1536KiB").unwrap(), (1536 << 10, "1536KiB".to_owned()));
    assert_eq!(size("2048MiB").unwrap().1, "2GiB");
    for wrong in ["", "MiB", "1MB", "1 MiB", "0B", "99999999TiB", "12"] {
        assert!(size(wrong).is_err(), "{wrong}");
    }
}
