#!/usr/bin/env python3
"""Tests of what needs no network: the checker, the torrent, the tables, the picture."""

import hashlib
import json
import os
import sys
import tempfile
import unittest
import xml.dom.minidom

sys.dont_write_bytecode = True

import plot
import results
from cases import CASES, Case, fitted
from content import Content
from tools import TOOLS
from torrent import bencode, make_torrent, piece_length


class CopiesAreChecked(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.content = Content(40_000, files=4)
        self.content.write(self.folder.name)
        self.file = f"{self.folder.name}/{self.content.names[2]}"

    def tearDown(self):
        self.folder.cleanup()

    def test_a_right_copy_has_no_fault(self):
        self.assertIsNone(self.content.fault(self.folder.name))

    def test_one_wrong_byte_is_found(self):
        with open(self.file, "r+b") as file:
            byte = file.read(1)
            file.seek(0)
            file.write(bytes([byte[0] ^ 1]))
        self.assertIn(self.content.names[2], self.content.fault(self.folder.name))

    def test_a_short_file_is_found(self):
        os.truncate(self.file, 9_999)
        self.assertIn(self.content.names[2], self.content.fault(self.folder.name))

    def test_a_missing_file_is_found(self):
        os.unlink(self.file)
        self.assertIn(self.content.names[2], self.content.fault(self.folder.name))

    def test_the_same_bytes_are_made_every_time(self):
        with tempfile.TemporaryDirectory() as other:
            Content(40_000, files=4).write(other)
            self.assertIsNone(self.content.fault(other))


class Torrents(unittest.TestCase):
    def test_values_are_written_in_order(self):
        self.assertEqual(bencode({"b": [1, -2], "a": b"\x00x", "c": {}}), b"d1:a2:\x00x1:bli1ei-2ee1:cdee")

    def test_pieces_run_across_files(self):
        with tempfile.TemporaryDirectory() as folder:
            parts = [b"a" * 10_000, b"b" * 10_000]
            for name, part in zip("xy", parts):
                with open(f"{folder}/{name}", "wb") as file:
                    file.write(part)
            torrent = make_torrent(folder, ["x", "y"], "http://master/")
        whole = b"".join(parts)
        pieces = [hashlib.sha1(whole[at : at + 16384]).digest() for at in (0, 16384)]
        self.assertIn(b"6:pieces40:" + b"".join(pieces), torrent)
        self.assertIn(b"5:filesld6:lengthi10000e4:pathl1:xee", torrent)

    def test_there_are_never_more_than_512_pieces(self):
        self.assertEqual(piece_length(1), 16384)
        self.assertEqual(piece_length(512 * 16384), 16384)
        self.assertEqual(piece_length(512 * 16384 + 1), 32768)


def record(tool, nodes, ratio, error=None, program="p"):
    case = {"name": f"all-{nodes}", "about": f"{nodes} nodes", "nodes": nodes, "size": 1 << 20, "rate": 8 << 20}
    result = {"case": case, "tool": tool, "size": 1 << 20, "load_before": 0.5}
    result["machine"] = {"cores": 2, "processor": "a", "memory_gib": 1, "kernel": "k", "tools": {tool: program}}
    if error:
        return result | {"error": error}
    done = {str(node): ratio for node in range(1, nodes + 1)}
    measured = {"done": done, "seconds": ratio, "ratio": ratio, "master_sent": 1.0, "cpu_seconds": 1.0}
    return result | measured | {"wall_seconds": ratio, "idle_percent": 50.0}


class Tables(unittest.TestCase):
    records = [record("xget", 4, ratio) for ratio in (1.3, 1.1, 1.2)] + [
        record("nginx", 4, 4.2),
        record("nginx", 64, 67.0),
        record("uftp", 4, 0, error="3 of 4 nodes did not finish: late"),
    ]

    def test_the_median_counts_and_the_fastest_stands_first(self):
        text = results.markdown(self.records)
        self.assertRegex(text, r"(?s)\| xget +\| +1.20 \| +1.10 – 1.30 \|.*\| nginx ")

    def test_failures_are_told(self):
        self.assertIn("3 of 4 nodes did not finish", results.markdown(self.records))
        self.assertNotIn("uftp", results.by_nodes(self.records))

    def test_only_the_newest_xget_counts(self):
        with tempfile.NamedTemporaryFile("w+") as file:
            for one in (record("xget", 4, 3.0, program="old"), record("nginx", 4, 4.2), record("xget", 4, 1.2)):
                file.write(json.dumps(one) + "\n")
            file.flush()
            self.assertEqual(results.by_nodes(results.load(file.name))["xget"], {4: 1.2})

    def test_the_machine_and_all_tools_are_named(self):
        text = results.machine(self.records)
        self.assertIn("nginx p, uftp p, xget p.", text)
        self.assertNotIn("other work", text)

    def test_the_picture_is_xml_and_names_each_tool(self):
        picture = plot.svg(results.by_nodes(self.records))
        xml.dom.minidom.parseString(picture)
        self.assertIn(">xget<", picture)
        self.assertIn(">nginx<", picture)


class Cases(unittest.TestCase):
    def test_slow_nodes_and_victims_are_spread_and_distinct(self):
        case = Case("x", "x", 16, 1, 10, slow=4, killed=2)
        self.assertEqual(case.slow_nodes(), [3, 7, 11, 15])
        self.assertEqual(case.rates().count(1), 4)
        self.assertEqual(case.events()[0].victims, [5, 13])

    def test_every_tool_that_a_case_names_is_there(self):
        self.assertLessEqual({tool for case in CASES for tool in case.tools}, set(TOOLS))

    def test_a_quarter_is_enough_for_one_by_one(self):
        case = Case("x", "x", 16, 64 << 20, 10)
        self.assertEqual(fitted(case, TOOLS["nginx"]).size, 16 << 20)
        self.assertEqual(fitted(case, TOOLS["nginx"]).asked, case.asked)
        self.assertEqual(fitted(case, TOOLS["xget"]), case)


if __name__ == "__main__":
    unittest.main()
