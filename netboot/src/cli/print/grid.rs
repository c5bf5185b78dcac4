//! Tables: one line for each item, and no line longer than the terminal is wide.

use comfy_table::{ColumnConstraint, Row, Width};

use super::super::table::{plain, table, text};

/// Blanks between columns.
const GAP: usize = 2;
/// A column that is cut keeps so much.
const LEAST: usize = 8;
/// No cell is longer, wherever it is printed.
const LONGEST: usize = 4000;

/// Returns the lines of a table. What comes from machines cannot move the cursor.
pub(super) fn lines(
    titles: &[&str],
    rows: Vec<Vec<String>>,
    width: Option<usize>,
    headers: bool,
) -> Vec<String> {
    let mut grid = table(titles);
    for cells in rows {
        let clean = |cell: String| plain(&cell).chars().take(LONGEST).collect::<String>();
        let mut row = Row::from(cells.into_iter().map(clean).collect::<Vec<_>>());
        // Longer than its column, a cell is cut, not folded.
        row.max_height(1);
        grid.add_row(row);
    }
    if let Some(width) = width {
        grid.set_truncation_indicator("…");
        let wide: Vec<usize> =
            grid.column_max_content_widths().iter().map(|width| usize::from(*width)).collect();
        let fit = fit(&wide, width);
        for ((column, wide), fit) in grid.column_iter_mut().zip(wide).zip(fit) {
            if fit < wide {
                let fit = u16::try_from(fit + GAP).unwrap_or(u16::MAX);
                column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(fit)));
            }
        }
    }
    text(&grid).lines().skip(usize::from(!headers)).map(str::to_owned).collect()
}

/// Makes the widest columns narrower until all of them fit, as far as that goes.
fn fit(wide: &[usize], total: usize) -> Vec<usize> {
    let mut fit = wide.to_vec();
    let gaps = GAP * wide.len().saturating_sub(1);
    loop {
        let excess = (fit.iter().sum::<usize>() + gaps).saturating_sub(total);
        let Some(widest) = fit.iter().copied().max().filter(|widest| *widest > LEAST) else {
            return fit;
        };
        if excess == 0 {
            return fit;
        }
        // As narrow as the next narrower one, and then together.
        let next = fit.iter().copied().filter(|width| *width < widest).max().unwrap_or(0);
        let all = fit.iter().filter(|width| **width == widest).count();
        let narrower = widest.saturating_sub(excess.div_ceil(all)).max(next).max(LEAST);
        for width in fit.iter_mut().filter(|width| **width == widest) {
            *width = narrower;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_columns_give_way_first() {
        assert_eq!(fit(&[4, 10, 50], 80), [4, 10, 50]);
        assert_eq!(fit(&[4, 10, 90], 80), [4, 10, 62]);
        assert_eq!(fit(&[4, 60, 90], 80), [4, 36, 36]);
        assert_eq!(fit(&[20, 30], 5), [8, 8]);
        assert_eq!(fit(&[], 5), [] as [usize; 0]);
    }

    #[test]
    fn a_line_is_never_longer_than_the_terminal() {
        let rows = vec![
            vec!["n1".to_owned(), "a reason of many words that goes on and on".to_owned()],
            vec!["n2".to_owned(), "漢".repeat(40)],
        ];
        let cut = lines(&["name", "reason"], rows.clone(), Some(30), true);
        assert_eq!(cut.len(), 3, "{cut:?}");
        assert!(cut.iter().all(|line| line.chars().count() <= 30), "{cut:?}");
        assert!(cut[1].starts_with("n1    a reason") && cut[1].ends_with('…'), "{cut:?}");
        let whole = lines(&["name", "reason"], rows, None, false);
        assert_eq!(whole[0], "n1    a reason of many words that goes on and on");
        assert_eq!(whole.len(), 2);
    }
}
