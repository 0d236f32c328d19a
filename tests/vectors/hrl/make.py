#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the test vectors of the .hrl format: a second, slow implementation of docs/hrl-format.md.

It shares no code with src/hrl, so that tests/unit/test_hrl.c, which reads the vectors, compares two readings of the page.
Run it only when the format itself changes: ./make.py. Needs libcrypto, libxxhash and libzstd as shared libraries.
"""
import ctypes
import hashlib
import hmac
import json
import os
import struct
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint64, c_void_p, create_string_buffer

KINDS = {"captured": 1, "captured_zero": 2, "scanned": 3, "scanned_zero": 4}
FLAGS = {"point": 1, "scanning": 2, "mark_app": 4, "mark_group": 8, "heartbeat": 16, "last": 32}
SECTOR, BLOCK, FRAME = 512, 4096, 256 << 10

crypto = ctypes.CDLL("libcrypto.so.3")
xxhash = ctypes.CDLL("libxxhash.so.0")
zstd = ctypes.CDLL("libzstd.so.1")


class Hash128(ctypes.Structure):
    _fields_ = [("low", c_uint64), ("high", c_uint64)]


xxhash.XXH3_128bits.restype = Hash128
xxhash.XXH3_128bits.argtypes = [c_char_p, c_size_t]
zstd.ZSTD_compress.restype = c_size_t
zstd.ZSTD_compress.argtypes = [c_char_p, c_size_t, c_char_p, c_size_t, c_int]
crypto.EVP_CIPHER_CTX_new.restype = c_void_p
crypto.EVP_aes_256_gcm.restype = c_void_p
crypto.EVP_EncryptInit_ex.argtypes = [c_void_p, c_void_p, c_void_p, c_char_p, c_char_p]
crypto.EVP_EncryptUpdate.argtypes = [c_void_p, c_char_p, c_void_p, c_char_p, c_int]
crypto.EVP_EncryptFinal_ex.argtypes = [c_void_p, c_char_p, c_void_p]
crypto.EVP_CIPHER_CTX_ctrl.argtypes = [c_void_p, c_int, c_int, c_char_p]
crypto.EVP_CIPHER_CTX_free.argtypes = [c_void_p]
GET_TAG = 0x10


def frame_hash(raw):
    h = xxhash.XXH3_128bits(raw, len(raw))
    return struct.pack(">QQ", h.high, h.low)


def gcm(key, number, aad, raw):
    nonce = struct.pack("<I8x", number)
    out, n, tag = create_string_buffer(len(raw) + 16), c_int(), create_string_buffer(16)
    ctx = crypto.EVP_CIPHER_CTX_new()
    assert crypto.EVP_EncryptInit_ex(ctx, crypto.EVP_aes_256_gcm(), None, key, nonce) == 1
    assert crypto.EVP_EncryptUpdate(ctx, None, byref(n), aad, len(aad)) == 1
    assert crypto.EVP_EncryptUpdate(ctx, out, byref(n), raw, len(raw)) == 1
    assert crypto.EVP_EncryptFinal_ex(ctx, None, byref(n)) == 1
    assert crypto.EVP_CIPHER_CTX_ctrl(ctx, GET_TAG, 16, tag) == 1
    crypto.EVP_CIPHER_CTX_free(ctx)
    return out.raw[:len(raw)] + tag.raw


def hkdf(key, salt, info):
    prk = hmac.new(salt, key, hashlib.sha256).digest()
    return hmac.new(prk, info + b"\x01", hashlib.sha256).digest()


def compress(raw, level):
    """The codec and the bytes; compression that saves less than 1/32 isn't used."""
    room = len(raw) - len(raw) // 32
    out = create_string_buffer(len(raw) + 4096)
    n = zstd.ZSTD_compress(out, len(out), raw, len(raw), level) if level > 0 and raw else len(raw)
    return (1, out.raw[:n]) if n < len(raw) and n <= room else (0, raw)


def write_bytes(write):
    pattern = bytes.fromhex(write["fill"])
    return (pattern * (write["length_bytes"] // len(pattern) + 1))[:write["length_bytes"]]


def sectors_of(writes):
    """What each sector is in the end: (disk, offset) -> (kind, bytes or None)."""
    seen = {}
    for write in sorted(writes, key=lambda w: "captured" in w["kind"]):  # stable: scanned ones first, then in order
        kind, disk, begin = KINDS[write["kind"]], write["disk"], write["offset_bytes"]
        data = write_bytes(write) if "fill" in write else None
        for at in range(0, write["length_bytes"], SECTOR):
            seen[disk, begin + at] = (kind, data[at:at + SECTOR] if data else None)
    return seen


def find_zero_blocks(seen):
    for disk, offset in list(seen):
        block = [(disk, offset + i * SECTOR) for i in range(BLOCK // SECTOR)]
        if offset % BLOCK == 0 and all(b in seen and seen[b][1] == bytes(SECTOR) for b in block):
            for b in block:
                seen[b] = (seen[b][0] + 1, None)


def pack(writes, frame_bytes_max):
    """Extents [offset, length, frame, frame offset, disk, kind] and frames."""
    seen, extents, frames = sectors_of(writes), [], []
    find_zero_blocks(seen)
    for (disk, offset), (kind, data) in sorted(seen.items()):
        frame = frame_offset = 0
        if data:
            if not frames or len(frames[-1]) == frame_bytes_max:
                frames.append(b"")
            frame, frame_offset = len(frames) - 1, len(frames[-1])
            frames[-1] += data
        last = extents[-1] if extents else None
        if last and last[4:] == [disk, kind] and last[0] + last[1] == offset and last[2] == frame:
            last[1] += SECTOR
        else:
            extents.append([offset, SECTOR, frame, frame_offset, disk, kind])
    return extents, frames


def canonical_header(head, extents, frames):
    header = b"\x89HRL\r\n\x1a\n" + struct.pack("<II", 1, sum(FLAGS[f] for f in head["flags"]))
    header += bytes.fromhex(head["vault"] + head["machine"] + head["instance"])
    header += struct.pack("<QQQQqq", head["epoch"], head["seq"], head["ring_cut"], head["scan_cursor"],
                          head["time_first_ns"], head["time_last_ns"])
    header += bytes.fromhex(head["prev_digest"])
    header += struct.pack("<IIQ", len(extents), len(frames), sum(map(len, frames)))
    return header.ljust(256, b"\0")


def storage_header(form, codec, index_stored, total, receipt_ns, digest, salt):
    return (struct.pack("<BBxxIQq", form, codec, index_stored, total, receipt_ns) + digest + salt).ljust(256, b"\0")


def make(name, description, head, writes, level, frame_bytes_max=FRAME):
    machine_key, salt = hashlib.sha256(b"key of " + name.encode()).digest(), hashlib.md5(name.encode()).digest()
    receipt_ns = 1767225605123456789
    extents, frames = pack(writes, frame_bytes_max)
    canonical = canonical_header(head, extents, frames)
    index = b"".join(struct.pack("<QIIIHBx", *e) for e in extents)
    index += b"".join(struct.pack("<I", len(f)) + frame_hash(f) for f in frames)
    digest = hashlib.sha256(canonical + index).digest()
    total = 512 + len(index) + sum(map(len, frames))
    plain = canonical + storage_header(1, 0, len(index), total, 0, digest, bytes(16)) + index + b"".join(frames)

    key = hkdf(machine_key, salt, b"lifeboat hrl seal v1")
    stored, places = [], b""
    for i, raw in enumerate(frames):
        codec, body = compress(raw, level)
        aad = bytes.fromhex(head["vault"] + head["machine"])
        aad += struct.pack("<QQIIIB3x", head["epoch"], head["seq"], 1, i, len(raw), codec)
        stored.append(gcm(key, i, aad, body))
        places += struct.pack("<IB3x", len(stored[-1]), codec)
    codec, body = compress(index + places, level)
    total = 512 + len(body) + 16 + sum(map(len, stored))
    header = canonical + storage_header(2, codec, len(body) + 16, total, receipt_ns, digest, salt)
    sealed = header + gcm(key, 0xFFFFFFFF, header, body) + b"".join(stored)

    vector = {"description": description, "header": head, "writes": writes, "plain": plain.hex(),
              "digest": digest.hex(), "machine_key": machine_key.hex(), "salt": salt.hex(), "receipt_ns": receipt_ns,
              "zstd_level": level, "sealed": sealed.hex()}
    if frame_bytes_max != FRAME:
        vector["frame_bytes_max"] = frame_bytes_max
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".json"), "w") as f:
        f.write(json.dumps(vector, indent=1) + "\n")


HEAD = {"flags": ["point"], "vault": "00112233445566778899aabbccddeeff", "machine": "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
        "instance": "5ca1ab1e00000000000000000000cafe", "epoch": 3, "seq": 41, "ring_cut": 0x0123456789ABCDEF,
        "scan_cursor": 77, "time_first_ns": 1767225600000000000, "time_last_ns": 1767225604999999999,
        "prev_digest": hashlib.sha256(b"the segment before").hexdigest()}


def data(disk, kind, offset, length, fill):
    return {"disk": disk, "kind": kind, "offset_bytes": offset, "length_bytes": length, "fill": fill}


def zero(disk, kind, offset, length):
    return {"disk": disk, "kind": kind, "offset_bytes": offset, "length_bytes": length}


make("heartbeat", "nothing was written", dict(HEAD, flags=["point", "heartbeat"]), [], 0)
make("overlaps", "two disks, all kinds, later writes over earlier ones; nothing compressed",
     dict(HEAD, flags=["point", "scanning"], seq=42), [
         data(0, "captured", 4096, 2048, "a1a2a3a4a5"),
         data(1, "captured", 1 << 40, 512, "b1"),
         data(0, "captured", 5120, 512, "c1c2c3"),
         data(0, "scanned", 3072, 2048, "d1d2"),
         data(0, "captured", 6144, 512, "e1e2e3e4"),
         zero(0, "captured_zero", 65536, 1 << 20),
         data(0, "captured", 98304, 512, "f1"),
         data(0, "captured", 2097152, 8192, "00"),
         data(0, "captured", 2105344, 512, "1718"),
         zero(1, "scanned_zero", 0, 8192)], 0)
make("compressed", "one frame and an index that zstd makes smaller", dict(HEAD, flags=["point", "mark_app"], seq=43), [
    data(0, "captured", i * 16384, 512, "%02x" % (i + 1)) for i in range(6)], 1)
make("frames", "several frames, smaller than our builder makes them", dict(HEAD, flags=["last"], seq=44), [
    data(7, "captured", 0, 2560, "0102030405060708090a0b"), data(7, "scanned", 2560, 512, "99")], 0, 1024)
