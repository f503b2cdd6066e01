"""A set of series as the bytes of a plain CSV file, which the reader takes without any option."""

from __future__ import annotations

import pandas as pd

from stanhop.series.frame import Series, SeriesSet


def csv_bytes(series_set: SeriesSet, *, first: int | None = None, last: int | None = None) -> bytes:
    """``series_set`` in its own layout: UTF-8, comma, point, ISO 8601; numbers read back as the same floats.

    Args:
        series_set: What to write.
        first: Only so many steps from the beginning of each series.
        last: Only so many steps from the end (of these).
    """
    frames = [_frame(one, series_set, first=first, last=last) for one in series_set.series]
    text: str = pd.concat(frames).to_csv(index=False, lineterminator="\n")
    return text.encode("utf-8", errors="surrogatepass")


def _frame(series: Series, series_set: SeriesSet, *, first: int | None, last: int | None) -> pd.DataFrame:
    layout = series_set.layout
    frame = pd.DataFrame(series.values, columns=list(series.channels))
    frame.insert(0, layout.time_column, series.times)
    if layout.id_column is not None:
        frame.insert(0, layout.id_column, series.id)
    return frame.iloc[:first].tail(len(frame) if last is None else last)
