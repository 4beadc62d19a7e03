//! `--stats`: what made the guest exit.

use serde_json::Value;

use crate::support::{Ended, Slotpass, needs_kvm};

fn demo_with_stats(slot: &str) -> (Ended, Value) {
    let run = Slotpass::demo(slot).simulated(["0:8:0", "3:5:0"]).args(["--stats=json:stats.json"]);
    let (ended, text) = run.end_and_read("stats.json");
    let ended = ended.expect_code(0).expect_silent_stderr();
    (ended, serde_json::from_str(&text).unwrap())
}

fn number(value: &Value, pointer: &str) -> u64 {
    value
        .pointer(pointer)
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("no number {pointer} in {value:#}"))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("no list {key} in {value:#}"))
}

fn function<'a>(stats: &'a Value, slot: &str) -> &'a Value {
    let found = list(stats, "functions").iter().find(|function| function["slot"] == slot);
    found.unwrap_or_else(|| panic!("no function {slot} in {stats:#}"))
}

/// Every piece of every BAR of a function, with the BAR's number.
fn pieces(function: &Value) -> impl Iterator<Item = (u64, &Value)> {
    let bars = list(function, "bars").iter();
    bars.flat_map(|bar| list(bar, "pieces").iter().map(|piece| (number(bar, "/bar"), piece)))
}

fn exits(piece: &Value) -> u64 {
    number(piece, "/reads") + number(piece, "/writes")
}

#[test]
fn mapped_pieces_take_no_exit_and_trapped_ones_count_them() {
    needs_kvm!();
    let (ended, stats) = demo_with_stats("3:5:0");
    assert_eq!(number(&stats, "/schema"), 1);
    let driven = function(&stats, "3:5:0");
    assert_eq!(driven["host"], "sim:demo");
    assert!(number(driven, "/config/reads") > 0 && number(driven, "/config/writes") > 0, "{driven:#}");
    let mut mapped = 0;
    for (bar, piece) in pieces(driven) {
        if piece["mapped"] == true {
            assert_eq!(exits(piece), 0, "exits of a mapped piece of BAR {bar}: {piece}\n{ended}");
            assert!(piece["reason"].is_null(), "BAR {bar}: {piece}");
            mapped += number(piece, "/size");
            assert_eq!(piece["read_only"], false);
            continue;
        }
        let count = if piece["read_only"] == true { number(piece, "/writes") } else { exits(piece) };
        assert!(count > 0, "the guest uses each trapped piece, also of BAR {bar}: {piece}\n{ended}");
        assert!(piece["reason"].is_string(), "BAR {bar}: {piece}");
    }
    // The whole of BAR 2, and BAR 4 without a page each for table and pending bits.
    assert_eq!(mapped, (1 << 20) + 0x1_0000 - 2 * 0x1000, "{driven:#}");
}

#[test]
fn the_phases_of_a_start() {
    needs_kvm!();
    let (_, stats) = demo_with_stats("0:8:0");
    let names = |list: &str| -> Vec<&str> {
        let phases = stats["start"][list].as_array().unwrap();
        assert!(phases.iter().all(|phase| number(phase, "/ns") > 0), "{phases:?}");
        phases.iter().filter_map(|phase| phase["name"].as_str()).collect()
    };
    let phases = ["exec", "options", "checks", "memory", "functions", "machine", "boot"];
    assert_eq!(names("phases"), phases);
    assert_eq!(names("meanwhile"), ["kernel"]);
}

/// The demo guest has seen that what it reads there is right: entries as it wrote them, and each pending bit, also with decode
/// off and where it moved the BAR.
#[test]
fn reads_of_the_msix_table_and_of_pending_bits_take_no_exit_unless_that_is_asked_for() {
    needs_kvm!();
    let (ended, stats) = demo_with_stats("3:5:0");
    let of_msix = |stats: &Value| -> Vec<(u64, u64, bool)> {
        let pieces =
            pieces(function(stats, "3:5:0")).filter(|(bar, piece)| *bar == 4 && piece["mapped"] == false);
        pieces
            .map(|(_, piece)| (number(piece, "/reads"), number(piece, "/writes"), piece["read_only"] == true))
            .collect()
    };
    let seen = of_msix(&stats);
    assert!(
        matches!(seen[..], [(0, 1000.., true), (0, 1.., true)]),
        "table, pending bits: {seen:?}\n{ended}"
    );

    let run = Slotpass::demo("3:5:0").simulated(["0:8:0"]).args(["--slot", "3:5:0=sim:demo,msix-page=trap"]);
    let (ended, text) = run.args(["--stats=json:stats.json"]).end_and_read("stats.json");
    let ended = ended.expect_code(0).expect_silent_stderr();
    let seen = of_msix(&serde_json::from_str(&text).unwrap());
    assert!(
        matches!(seen[..], [(1000.., 1000.., false), (1000.., 1.., false)]),
        "table, pending bits: {seen:?}\n{ended}"
    );
}

#[test]
fn a_function_that_nobody_drives_has_no_exits_in_its_bars() {
    needs_kvm!();
    let (_, stats) = demo_with_stats("0:8:0");
    for (bar, piece) in pieces(function(&stats, "3:5:0")) {
        assert_eq!(exits(piece), 0, "BAR {bar}: {piece}");
    }
}

#[test]
fn pieces_cover_their_bars_without_gap_or_overlap() {
    needs_kvm!();
    let (_, stats) = demo_with_stats("0:8:0");
    for function in list(&stats, "functions") {
        let bars: Vec<(u64, &str, bool)> = list(function, "bars")
            .iter()
            .map(|bar| (number(bar, "/bar"), bar["kind"].as_str().unwrap(), bar["prefetchable"] == true))
            .collect();
        assert_eq!(
            bars,
            [(0, "memory32", false), (1, "io", false), (2, "memory64", true), (4, "memory64", false)],
            "{function:#}"
        );
        for bar in list(function, "bars") {
            let end = list(bar, "pieces").iter().fold(0, |end, piece| {
                assert_eq!(number(piece, "/offset"), end, "{bar:#}");
                end + number(piece, "/size")
            });
            assert_eq!(end, number(bar, "/size"), "{bar:#}");
        }
    }
}

#[test]
fn exits_of_trapped_pieces_are_told_by_page_with_their_times() {
    needs_kvm!();
    let (ended, stats) = demo_with_stats("3:5:0");
    for (bar, piece) in pieces(function(&stats, "3:5:0")) {
        let pages = list(piece, "pages");
        if piece["mapped"] == true {
            assert!(pages.is_empty(), "BAR {bar}: {piece:#}");
            continue;
        }
        let (start, end) = (number(piece, "/offset"), number(piece, "/offset") + number(piece, "/size"));
        let mut before = None;
        for page in pages {
            let offset = number(page, "/offset");
            assert!(offset >= start && offset < end && offset.is_multiple_of(4096), "BAR {bar}: {piece:#}");
            assert!(before.replace(offset) < Some(offset), "pages in order: BAR {bar}: {piece:#}");
            let ns = |name: &str| number(page, &format!("/ns/{name}"));
            let in_order = [ns("min"), ns("p50"), ns("p99"), ns("max"), ns("sum")];
            assert!(in_order.is_sorted(), "BAR {bar}: {page:#}\n{ended}");
        }
        for count in ["/reads", "/writes"] {
            let all: u64 = pages.iter().map(|page| number(page, count)).sum();
            assert_eq!(all, number(piece, count), "{count} of BAR {bar}: {piece:#}");
        }
    }
    for (bar, piece) in pieces(function(&stats, "0:8:0")) {
        assert!(list(piece, "pages").is_empty(), "nobody accesses BAR {bar}: {piece:#}");
    }
}

#[test]
fn each_exit_is_counted_at_exactly_one_place() {
    needs_kvm!();
    let (_, stats) = demo_with_stats("0:8:0");
    let devices = |wanted: &[&str], pointer: &str| -> u64 {
        let here = list(&stats, "devices").iter();
        let memory = |name: &Value| name == "ecam";
        match wanted {
            ["memory"] => here.filter(|d| memory(&d["name"])).map(|d| number(d, pointer)).sum(),
            _ => here.filter(|d| !memory(&d["name"])).map(|d| number(d, pointer)).sum(),
        }
    };
    let bars = |io: bool, pointer: &str| -> u64 {
        let functions = list(&stats, "functions").iter();
        let bars = functions.flat_map(|function| list(function, "bars"));
        let bars = bars.filter(|bar| (bar["kind"] == "io") == io);
        bars.flat_map(|bar| list(bar, "pieces")).map(|piece| number(piece, pointer)).sum()
    };
    for (exits, io, space, pointer) in [
        ("/exits/io_in", true, "io", "/reads"),
        ("/exits/io_out", true, "io", "/writes"),
        ("/exits/mmio_read", false, "memory", "/reads"),
        ("/exits/mmio_write", false, "memory", "/writes"),
    ] {
        let reached = devices(&[space], pointer) + bars(io, pointer);
        let unclaimed = number(&stats, &format!("/unclaimed/{space}{pointer}"));
        assert_eq!(number(&stats, exits), reached + unclaimed, "{exits} in {stats:#}");
    }
    for reason in ["io_in", "io_out", "mmio_read", "mmio_write", "hlt", "interrupted", "other"] {
        let sum: u64 = list(&stats, "vcpus").iter().map(|vcpu| number(vcpu, &format!("/{reason}"))).sum();
        assert_eq!(number(&stats, &format!("/exits/{reason}")), sum, "{reason} in {stats:#}");
    }
}

#[test]
fn without_a_file_the_table_goes_to_stderr() {
    needs_kvm!();
    let ended = Slotpass::demo("0:8:0").simulated(["0:8:0"]).args(["--stats"]).end().expect_code(0);
    for part in [
        "exits: io in ",
        "0:8:0 = sim:demo",
        "BAR 2 0x0..0x100000 mapped",
        "ecam",
        "\n0:8:0 BAR 4 0x0 ",
        "    shares its page with the MSI-X table",
    ] {
        assert!(ended.stderr.contains(part), "expected on stderr: {part:?}\n{ended}");
        assert!(!ended.stdout.contains(part), "not expected on stdout: {part:?}\n{ended}");
    }
}
