#!/usr/bin/env bash
# Runs every fuzz target (or those named) one after another, MINUTES in all (default 20), and says what each did.
#
# New inputs go to the build folder, so a run leaves the committed corpora alone. A failing input lies in
# fuzz/artifacts/TARGET: make it smaller with `cargo fuzz tmin`, give it a name that says what it is, and put it into
# fuzz/corpus/TARGET with the fix; from then on `make test` replays it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly VERSION=0.13.2
# libFuzzer's own limit would let an input grow to a megabyte; nothing that is read here is that long.
readonly INPUT_BYTES_MAX=4096

command -v cargo >/dev/null || { echo "fuzz: Rust is not installed: https://rustup.rs" >&2; exit 2; }
command -v c++ >/dev/null || { echo "fuzz: a C++ compiler is missing (Debian: g++)" >&2; exit 2; }
cache=${XDG_CACHE_HOME:-$HOME/.cache}/spillway/cargo-fuzz-$VERSION
if [[ ! -x $cache/bin/cargo-fuzz ]]; then
    echo "fuzz: building cargo-fuzz $VERSION once, into the user's cache" >&2
    cargo install cargo-fuzz --version "$VERSION" --locked --quiet --root "$cache"
fi

mapfile -t all < <(sed -nE 's/^path = "fuzz_targets\/(.*)\.rs"$/\1/p' Cargo.toml)
targets=("$@")
[[ ${#targets[@]} -gt 0 ]] || targets=("${all[@]}")
seconds=$((${MINUTES:-20} * 60 / ${#targets[@]}))
build=${FUZZ_TARGET_DIR:-$PWD/target}
export CARGO_TARGET_DIR=$build

# All code is safe Rust (`unsafe_code = "forbid"`), so no sanitizer: it would find nothing, and stable Rust has none.
fuzz() { "$cache/bin/cargo-fuzz" fuzz "$@"; }
fuzz build --sanitizer none --fuzz-dir .

failed=0
for target in "${targets[@]}"; do
    gathered=$build/corpus/$target
    mkdir -p "$gathered" "artifacts/$target"
    printf '== %s (%d s)\n' "$target" "$seconds"
    # -detect_leaks needs a sanitizer; the rest bounds one input to 10 s and 1 GB.
    if ! fuzz run --sanitizer none --fuzz-dir . "$target" "$gathered" "corpus/$target" -- \
        -max_total_time="$seconds" -max_len=$INPUT_BYTES_MAX -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
        -verbosity=0 >"$build/$target.log" 2>&1; then
        failed=$((failed + 1))
        tail -n 40 "$build/$target.log"
        echo "   FAILED: the input is in fuzz/artifacts/$target"
    fi
    grep -E 'number_of_executed_units|average_exec_per_sec|peak_rss_mb' "$build/$target.log" | sed 's/^stat::/   /' || true
done
printf '%d targets, %d failed\n' "${#targets[@]}" "$failed"
[[ $failed -eq 0 ]]
