# SPDX-License-Identifier: Apache-2.0
# A thin front of Meson and of scripts/: what a person types.
BUILD ?= build
YES ?=
MESON_OPTIONS ?=

all: build

$(BUILD)/build.ninja:
	meson setup $(BUILD) $(MESON_OPTIONS)

build: $(BUILD)/build.ninja
	ninja -C $(BUILD)

deps:
	scripts/deps.sh $(if $(YES),--yes)

deps-full:
	scripts/deps.sh --full $(if $(YES),--yes)

doctor:
	scripts/doctor.sh

demo: deps build
	scripts/demo.py --build $(BUILD) $(if $(KEEP),--keep)

demo-clean:
	scripts/demo.py --clean

demo-full: deps-full build
	scripts/demo-full.py --build $(BUILD)

check-cycle: deps build
	scripts/check_cycle.py --build $(BUILD)

check: deps
	scripts/check.py $(CHECK)

check-fresh:
	scripts/check-fresh.sh

bench: deps
	scripts/bench.sh $(BUILD)-bench

deb: build
	packaging/build-deb.sh $(BUILD)

fuzz:
	scripts/fuzz.sh

format:
	git ls-files '*.c' '*.h' | xargs clang-format -i

install: build
	meson install -C $(BUILD)

clean:
	rm -rf $(BUILD) build-asan build-fault build-fuzz

.PHONY: all build deps deps-full doctor demo demo-clean demo-full check check-cycle check-fresh bench deb fuzz format install clean
