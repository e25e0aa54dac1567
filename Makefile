# The commands of the README. Each installs what it lacks and can be repeated.
.PHONY: setup build quickstart test benchmarks format clean

JOBS ?= $(shell nproc)

setup:
	./scripts/setup.sh

build: setup
	cmake --preset release
	cmake --build --preset release -j $(JOBS) --target triptych quickstart_data quickstart_report

quickstart: build
	./scripts/quickstart.sh

test:
	./scripts/setup.sh --tests
	cmake --preset release
	cmake --build --preset release -j $(JOBS)
	ctest --test-dir build/release --output-on-failure -j $(JOBS)

# Beside the reference implementations: minutes of measuring, on an otherwise idle machine.
benchmarks:
	./scripts/setup.sh --tests
	cmake --preset release
	cmake --build --preset release -j $(JOBS)
	.venv/bin/python benchmarks/compare.py

format:
	git ls-files '*.h' '*.cpp' | xargs clang-format-19 -i

clean:
	rm -rf build
