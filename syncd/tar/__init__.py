"""Tar archives: members found in a stream of bytes, and the bytes of their headers.

Pure: `Parser` reads what images contain in practice and refuses what is damaged; `encode_header`
writes what every tar reads.  Nothing here opens a file or keeps a member's content.
"""

from syncd.tar.acl import class_permissions, with_ids
from syncd.tar.acl import fault as acl_fault
from syncd.tar.acl import numeric_ids as acl_ids
from syncd.tar.member import (
    BLOCK,
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DIRECTORY,
    END_OF_ARCHIVE,
    FIFO,
    FILE,
    HARD_LINK,
    MEMBER,
    NO_XATTRS,
    SYMLINK,
    Member,
    encode_header,
    is_whole,
    padding,
    quote,
    weight,
)
from syncd.tar.reader import Parser

__all__ = [
    "BLOCK",
    "BLOCK_DEVICE",
    "CHARACTER_DEVICE",
    "DIRECTORY",
    "END_OF_ARCHIVE",
    "FIFO",
    "FILE",
    "HARD_LINK",
    "MEMBER",
    "NO_XATTRS",
    "SYMLINK",
    "Member",
    "Parser",
    "acl_fault",
    "acl_ids",
    "class_permissions",
    "encode_header",
    "is_whole",
    "padding",
    "quote",
    "weight",
    "with_ids",
]
