# make demo      set up, build, and run a workflow in a microVM
# make test      set up, and run every test
# make kit       build the kit: kernel, modules, agent, keeper, vsock helper
# make test-kvm-host   run creel on a real KVM host, booted for it
# make deny      licences, bans and sources of the dependencies
# make install   install below $(DESTDIR)$(prefix)

prefix ?= /usr/local
host_triple := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
target := target
kit := $(target)/kit
creel := $(target)/release/creel

# A pinned copy: the hybrid transport's helper, which Debian does not package.
vsock_helper_version := 0.3.0
vsock_helper := $(target)/vsock-helper/$(vsock_helper_version)/bin/vhost-device-vsock

cargo_deny_version := 0.20.2
cargo_deny := $(target)/tools/bin/cargo-deny

# Flags are not per package, so what is linked statically has a target directory of its own.
static_dir := $(target)/static
static_programs := $(static_dir)/$(host_triple)/static

.PHONY: demo build kit setup test test-kvm-host deny install clean

demo: kit
	$(creel) image build tiny
	$(creel) run -f examples/hello.yml

setup:
	@scripts/setup

build: setup
	cargo build --release --locked --bin creel

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
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	CREEL_KIT__DIR=$(abspath $(kit)) CREEL_TEST_PROGRAM=$(abspath $(creel)) \
		CREEL_TEST_KEEPER=$(abspath $(kit))/bin/creel-keeper cargo test --locked --workspace

# A KVM host booted as a fixture: KVM, kernel vsock and cgroup v2 are real there. Minutes, and 4 GiB of memory.
test-kvm-host: kit
	scripts/setup --kvm-host
	tests/kvm-host/run

deny: $(cargo_deny)
	$(cargo_deny) check bans licenses sources
	@if timeout 120 $(cargo_deny) fetch db >/dev/null 2>&1; then \
		$(cargo_deny) check --disable-fetch advisories; \
	else \
		echo "advisories: NOT CHECKED, their database can't be fetched from here"; \
	fi

$(cargo_deny):
	cargo install --locked --root $(target)/tools --version $(cargo_deny_version) cargo-deny

install: kit
	install -D -m 755 $(creel) $(DESTDIR)$(prefix)/bin/creel
	mkdir -p $(DESTDIR)$(prefix)/lib/creel
	cp -rT $(kit) $(DESTDIR)$(prefix)/lib/creel/kit

clean:
	cargo clean
