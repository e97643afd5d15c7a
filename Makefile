# make demo      set up, build, and run a workflow in a microVM
# make test      set up, and run every test
# make kit       build the kit: kernel, modules, agent, keeper, vsock helper
# make test-kvm-host   install and try the Debian package on a KVM host that is booted for it
# make bench     measure creel beside its peers, and write docs/performance.md; root, a quarter of an hour
# make fuzz      run every fuzz target for FUZZ_SECONDS (20)
# make deny      licences, bans and sources of the dependencies
# make deb       build the Debian package, target/debian/creel_<version>_<arch>.deb
# make install   install below $(DESTDIR)$(prefix); as root the daemon, its units and configuration too

prefix ?= /usr/local
sysconfdir ?= /etc
host_triple := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
target := target
kit := $(target)/kit
creel := $(target)/release/creel
creeld := $(target)/release/creeld

# A pinned copy: the hybrid transport's helper, which Debian does not package.
vsock_helper_version := 0.3.0
vsock_helper := $(target)/vsock-helper/$(vsock_helper_version)/bin/vhost-device-vsock

cargo_deny_version := 0.20.2
cargo_deny := $(target)/tools/bin/cargo-deny

# Where zsh looks for completions of packages, and for those of the host.
zsh_completions = $(prefix)/share/zsh/$(if $(filter /usr,$(prefix)),vendor-completions,site-functions)

# Flags are not per package, so what is linked statically has a target directory of its own.
static_dir := $(target)/static
static_programs := $(static_dir)/$(host_triple)/static

.PHONY: demo build kit setup test test-kvm-host bench fuzz deny deb install install-tree install-command install-daemon clean

demo: kit
	$(creel) image build tiny
	$(creel) run -f examples/hello.yml

setup:
	@scripts/setup

build: setup
	cargo build --release --locked --bin creel --bin creeld

kit: build $(vsock_helper)
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --profile static \
		--target $(host_triple) --target-dir $(static_dir) -p creel-agent -p creel-keeper
	$(creel) debug kit --output $(kit) --agent $(static_programs)/creel-agent \
		--keeper $(static_programs)/creel-keeper --vsock-helper $(vsock_helper)

$(vsock_helper): | setup
	cargo install --locked --root $(target)/vsock-helper/$(vsock_helper_version) \
		--version $(vsock_helper_version) vhost-device-vsock

test: kit
	scripts/setup --test
	systemd/check
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	CREEL_KIT__DIR=$(abspath $(kit)) CREEL_TEST_PROGRAM=$(abspath $(creel)) \
		CREEL_TEST_KEEPER=$(abspath $(kit))/bin/creel-keeper cargo test --locked --workspace

# A KVM host booted as a fixture: systemd, KVM, kernel vsock and cgroup v2 are real there. Root, a quarter of an hour, and
# 4 GiB of memory.
test-kvm-host: kit
	scripts/setup --kvm-host
	tests/kvm-host/run

bench: kit
	scripts/setup --bench
	cargo build --release --locked -p creel-bench
	$(target)/release/creel-bench --kit $(kit); status=$$?; \
		$(target)/release/creel-bench --write-docs && exit $$status

# The committed inputs are tried by `make test` too; this looks for new ones.
fuzz:
	scripts/setup --fuzz
	scripts/fuzz

deny: $(cargo_deny)
	$(cargo_deny) check bans licenses sources
	@if timeout 120 $(cargo_deny) fetch db >/dev/null 2>&1; then \
		$(cargo_deny) check --disable-fetch advisories; \
	else \
		echo "advisories: NOT CHECKED, their database can't be fetched from here"; \
	fi

$(cargo_deny):
	cargo install --locked --root $(target)/tools --version $(cargo_deny_version) cargo-deny

deb: kit
	packaging/debian/build

# The daemon is root's: an ordinary user gets the command alone.
install: kit
	$(MAKE) --no-print-directory install-command \
		$(if $(or $(DESTDIR),$(filter 0,$(shell id -u))),install-daemon)

# What is put where, from what is built; the Debian package takes it from here too.
install-tree: install-command install-daemon

install-command:
	install -D -m 755 $(creel) $(DESTDIR)$(prefix)/bin/creel
	install -d $(DESTDIR)$(prefix)/lib/creel
	cp -rT $(kit) $(DESTDIR)$(prefix)/lib/creel/kit
	$(creel) debug man --output $(DESTDIR)$(prefix)/share/man
	cd $(DESTDIR)$(prefix)/share/man && gzip -9nf man1/creel*.1 man8/creeld.8 && \
		chmod 644 man1/creel*.1.gz man8/creeld.8.gz
	install -d $(DESTDIR)$(prefix)/share/bash-completion/completions $(DESTDIR)$(zsh_completions) \
		$(DESTDIR)$(prefix)/share/fish/vendor_completions.d
	$(creel) completions bash >$(DESTDIR)$(prefix)/share/bash-completion/completions/creel
	$(creel) completions zsh >$(DESTDIR)$(zsh_completions)/_creel
	$(creel) completions fish >$(DESTDIR)$(prefix)/share/fish/vendor_completions.d/creel.fish
	chmod 644 $(DESTDIR)$(prefix)/share/bash-completion/completions/creel \
		$(DESTDIR)$(zsh_completions)/_creel $(DESTDIR)$(prefix)/share/fish/vendor_completions.d/creel.fish

# Units name the package's paths; below another prefix they name that one.
install-daemon:
	install -D -m 755 $(creeld) $(DESTDIR)$(prefix)/sbin/creeld
	install -d $(DESTDIR)$(prefix)/lib/systemd/system
	for unit in $(notdir $(wildcard systemd/*.service systemd/*.socket systemd/*.slice)); do \
		sed 's|/usr/|$(prefix)/|g' systemd/$$unit >$(DESTDIR)$(prefix)/lib/systemd/system/$$unit && \
		chmod 644 $(DESTDIR)$(prefix)/lib/systemd/system/$$unit || exit; \
	done
	install -D -m 644 systemd/creel.sysusers $(DESTDIR)$(prefix)/lib/sysusers.d/creel.conf
	install -D -m 644 systemd/creel.tmpfiles $(DESTDIR)$(prefix)/lib/tmpfiles.d/creel.conf
	install -d $(DESTDIR)$(prefix)/share/doc/creel
	install -m 644 docs/operations.md docs/configuration.md $(DESTDIR)$(prefix)/share/doc/creel
	install -d $(DESTDIR)$(sysconfdir)/creel
	install -d -m 700 $(DESTDIR)$(sysconfdir)/creel/keys
	test -e $(DESTDIR)$(sysconfdir)/creel/creel.toml || \
		install -m 644 packaging/creel.toml $(DESTDIR)$(sysconfdir)/creel/creel.toml
	install -D -m 644 packaging/needrestart.conf $(DESTDIR)$(sysconfdir)/needrestart/conf.d/creel.conf

clean:
	cargo clean
