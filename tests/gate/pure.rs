//! The gate as a function, against every cell of the table.

use std::collections::HashSet;

use ssh_proto::raw::{Verdict, admit};

use crate::oracle;

#[test]
fn the_gate_agrees_with_the_table_in_every_cell() {
    let (mut cells, mut differences) = (0, Vec::new());
    for row in oracle::rows() {
        for (number, &expected) in (0..=255).zip(&row.verdicts) {
            cells += 1;
            for strict in row.kinds() {
                let verdict = admit(row.side, row.state, strict, number);
                if verdict != expected {
                    differences.push((row.side, row.state, strict, number, verdict, expected));
                }
            }
        }
    }
    assert_eq!(differences, []);
    assert_eq!(cells, 14_080);
}

#[test]
fn the_table_has_each_of_its_lines_once_and_the_known_number_of_each_verdict() {
    let rows = oracle::rows();
    let lines: HashSet<_> = rows
        .iter()
        .flat_map(|row| row.kinds().into_iter().map(|strict| (row.side, row.state, strict)))
        .collect();
    assert_eq!(lines.len(), rows.iter().map(|row| row.kinds().len()).sum::<usize>());
    assert_eq!(rows.len(), 55);
    let count = |verdict| rows.iter().flat_map(|row| row.verdicts).filter(|v| *v == verdict).count();
    for (verdict, cells) in [
        (Verdict::Violation, 9393),
        (Verdict::Unimplemented, 2703),
        (Verdict::NotRead, 1024),
        (Verdict::Discard, 512),
        (Verdict::Ignore, 134),
        (Verdict::Skip, 120),
        (Verdict::Accept, 57),
        (Verdict::AcceptIf, 55),
        (Verdict::Terminate, 49),
        (Verdict::UseIfAwaited, 33),
    ] {
        assert_eq!(count(verdict), cells, "{verdict:?}");
    }
}
