"""The two ledgers."""

import json
import subprocess

import httpx

from screen import bold, dollars, green, red
from servers import PATIENCE_S, eventually


class Books:
    """What the mock bills and what Tollgate booked, in nano-dollars by model."""

    def __init__(self, mock, tollgate, binaries):
        self.mock = mock
        self.spend = [binaries / "tollgate", "spend", "--json", "--address", tollgate]

    def billed(self):
        ledger = httpx.get(f"http://{self.mock}/ledger").json()
        return {model: sums["nanos"] for model, sums in ledger["models"].items()}

    def booked(self):
        """Once nothing is in flight any more."""
        report = eventually("every request is settled", self.settled_report)
        return {line["name"]: nanos(line["spent"]) for line in report["byModel"]}

    def settled_report(self):
        answer = subprocess.run(self.spend, check=True, capture_output=True, timeout=PATIENCE_S)
        report = json.loads(answer.stdout)["organization"]
        is_settled = int(report["unsettledRequests"]) == 0 and nanos(report["spend"]["reserved"]) == 0
        return report if is_settled else None

    def agree(self):
        """Shows them side by side."""
        booked, billed = self.booked(), self.billed()
        rows = [(model, billed.get(model, 0), booked.get(model, 0)) for model in sorted({*billed, *booked})]
        rows.append(("in total", sum(billed.values()), sum(booked.values())))
        print(bold(f"\n{'':32}{'Groq (the mock) bills':>22}{'Tollgate booked':>20}"))
        for name, bill, book in rows:
            mark = green("the same") if bill == book else red(f"{book - bill:+} nano-dollars")
            print(f"{name:32}{dollars(bill):>22}{dollars(book):>20}   {mark}")
        return all(bill == book for _, bill, book in rows) and rows[-1][1] > 0


def nanos(money):
    return int(money["units"]) * 10**9 + money["nanos"]
