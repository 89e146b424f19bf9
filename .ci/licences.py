#!/usr/bin/env python3
"""Checks what the lock file brings in: every licence is on the list, and no crate we use ourselves comes twice.

Reads `cargo metadata --offline --locked`, of the platform it runs on; needs nothing but Python and Cargo.
"""

import collections
import json
import re
import subprocess
import sys

ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
}

# Two incompatible versions of a crate whose types we use are usually a mistake. These are not:
TWICE = {
    "base64": "the older one is of tonic and jsonwebtoken, and ours; the newer one is of what makes certificates for tests",
    "getrandom": "the older one is of ring, which rustls could use; it is in the lock file, and never built",
    "hashbrown": "the older one is of prost-build, which runs at build time; the newer one is ours and of what runs",
    "num-bigint": "the older one reads serial numbers in certificates; the newer one is an oracle of tests",
    "toml_edit": "the older one is ours; the newer one only builds macros",
}


def metadata():
    """The packages that are built here, by id, and the id of our own."""
    host = re.search(r"^host: (.+)$", run("rustc", "-vV"), re.M).group(1)
    command = ("cargo", "metadata", "--offline", "--locked", "--format-version", "1", "--filter-platform", host)
    document = json.loads(run(*command))
    resolved = {node["id"] for node in document["resolve"]["nodes"]}
    return {p["id"]: p for p in document["packages"] if p["id"] in resolved}, document["resolve"]["root"]


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def permitted(expression):
    """Whether an SPDX expression can be met with the licences on the list."""
    # `/` is how old crates write OR.
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
    position = 0

    def peek():
        return tokens[position].upper() if position < len(tokens) else None

    def take():
        nonlocal position
        position += 1
        return tokens[position - 1]

    def either():
        result = both()
        while peek() == "OR":
            take()
            result = both() or result
        return result

    def both():
        result = one()
        while peek() == "AND":
            take()
            result = one() and result
        return result

    def one():
        if peek() is None:
            raise ValueError(f"`{expression}` ends too early")
        if peek() == "(":
            take()
            result = either()
            if peek() != ")":
                raise ValueError(f"`{expression}` lacks a parenthesis")
            take()
            return result
        name = take()
        if peek() == "WITH":
            take()
            exception = take()
            # Without its exception a licence is stricter; whoever may use it so may use it with the exception.
            return name in ALLOWED or f"{name} WITH {exception}" in ALLOWED
        return name in ALLOWED

    result = either()
    if position != len(tokens):
        raise ValueError(f"`{expression}` is no licence expression")
    return result


def compatible(version):
    """The part of a version that must be equal for two to be compatible."""
    major, minor, *_ = version.split(".")
    return (major, minor) if major == "0" else (major,)


def main():
    packages, root = metadata()
    faults = []
    for package in packages.values():
        name = f"{package['name']} {package['version']}"
        licence = package["license"]
        try:
            if not licence:
                faults.append(f"{name} states no licence")
            elif not permitted(licence):
                faults.append(f"{name} is under `{licence}`, which is not on the list")
        except ValueError as error:
            faults.append(f"{name}: {error}")

    versions = collections.defaultdict(set)
    for package in packages.values():
        versions[package["name"]].add(compatible(package["version"]))
    for name in sorted({dependency["name"] for dependency in packages[root]["dependencies"]}):
        if len(versions[name]) > 1 and name not in TWICE:
            shown = ", ".join(".".join(version) for version in sorted(versions[name]))
            faults.append(f"{name} comes in {len(versions[name])} incompatible versions: {shown} (cargo tree -d)")

    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"licences: {len(packages)} packages, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
