# SPDX-License-Identifier: Apache-2.0
"""What is measured, turn by turn, and the table at the end."""
import time

COLUMNS = ("turn", "took s", "RPO s", "RTO s", "to recovery MiB", "to primary MiB", "frozen ms", "transfers")


class Figures:
    def __init__(self, link_bytes, transfers):
        self.link_bytes, self.transfers = link_bytes, transfers
        self.rows = []

    def begin(self, name):
        self.row = {"turn": name}
        self.began = (time.monotonic(), self.link_bytes(), self.transfers())

    def put(self, column, value):
        self.row[column] = value

    def end(self):
        then, (out, back), transfers = self.began
        sent, received = self.link_bytes()
        self.row |= {"took s": time.monotonic() - then, "to recovery MiB": (sent - out) / 2**20,
                     "to primary MiB": (received - back) / 2**20, "transfers": self.transfers() - transfers}
        self.rows.append(self.row)

    def table(self):
        cells = [COLUMNS] + [tuple(shown(row.get(c)) for c in COLUMNS) for row in self.rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(COLUMNS))]
        return "\n".join("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
                         for row in cells)


def shown(value):
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
