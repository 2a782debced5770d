// Verifies a log that Casemate wrote with software that is not Casemate's: golang.org/x/mod's
// sumdb/note and sumdb/tlog (the Go checksum database) and filippo.io/torchwood (Certificate
// Transparency logs in the tlog-tiles layout).
//
//	audit-go DIRECTORY
//
// DIRECTORY holds vkey, public/ (checkpoint and tiles), records/<index> with the bytes that were
// acknowledged, receipts/<index>, checkpoints/<size> as they were signed on the way, and
// consistency/<old>-<new> with Casemate's own proofs.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Println("FAIL", err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

func run(directory string) error {
	vkey, err := os.ReadFile(filepath.Join(directory, "vkey"))
	if err != nil {
		return err
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(vkey)))
	if err != nil {
		return err
	}
	head, err := open(filepath.Join(directory, "public", "checkpoint"), verifier)
	if err != nil {
		return err
	}
	tiles, err := torchwood.NewTileFS(os.DirFS(filepath.Join(directory, "public")))
	if err != nil {
		return err
	}
	if err := checkEntries(directory, head, tiles); err != nil {
		return fmt.Errorf("entries: %w", err)
	}
	hashes := torchwood.TileHashReaderWithContext(context.Background(), head, tiles)
	if err := checkReceipts(directory, verifier, hashes); err != nil {
		return fmt.Errorf("receipts: %w", err)
	}
	if err := checkHistory(directory, verifier, head, hashes); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	return nil
}

// open reads a checkpoint that the log's key signed.
func open(file string, verifier note.Verifier) (tlog.Tree, error) {
	signed, err := os.ReadFile(file)
	if err != nil {
		return tlog.Tree{}, err
	}
	return parse(signed, verifier)
}

func parse(signed []byte, verifier note.Verifier) (tlog.Tree, error) {
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		return tlog.Tree{}, fmt.Errorf("not a checkpoint of %s: %q", verifier.Name(), opened.Text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

// checkEntries reads every entry through verified tiles and compares it with what was acknowledged.
func checkEntries(directory string, head tlog.Tree, tiles torchwood.TileReaderWithContext) error {
	client, err := torchwood.NewClient(tiles)
	if err != nil {
		return err
	}
	var count int64
	for index, entry := range client.AllEntries(context.Background(), head, 0) {
		acknowledged, err := os.ReadFile(filepath.Join(directory, "records", strconv.FormatInt(index, 10)))
		if err != nil {
			return err
		}
		if !bytes.Equal(entry, acknowledged) {
			return fmt.Errorf("entry %d is not the record that was acknowledged", index)
		}
		count++
	}
	if err := client.Err(); err != nil {
		return err
	}
	if count != head.N {
		return fmt.Errorf("%d entries in a log of %d", count, head.N)
	}
	fmt.Println("entries", count)
	return nil
}

// checkReceipts verifies each receipt by torchwood, and that its path is the one x/mod computes.
func checkReceipts(directory string, verifier note.Verifier, hashes tlog.HashReader) error {
	files, err := os.ReadDir(filepath.Join(directory, "receipts"))
	if err != nil {
		return err
	}
	policy := torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(verifier.Name()), torchwood.SingleVerifierPolicy(verifier))
	for _, file := range files {
		receipt, err := os.ReadFile(filepath.Join(directory, "receipts", file.Name()))
		if err != nil {
			return err
		}
		record, err := os.ReadFile(filepath.Join(directory, "records", file.Name()))
		if err != nil {
			return err
		}
		if err := torchwood.VerifyProof(policy, tlog.RecordHash(record), receipt); err != nil {
			return fmt.Errorf("%s: %w", file.Name(), err)
		}
		if err := torchwood.VerifyProof(policy, tlog.RecordHash(append(record, ' ')), receipt); err == nil {
			return fmt.Errorf("%s verifies for another record", file.Name())
		}
		head, checkpoint, _ := strings.Cut(string(receipt), "\n\n")
		tree, err := parse([]byte(checkpoint), verifier)
		if err != nil {
			return err
		}
		index, err := strconv.ParseInt(file.Name(), 10, 64)
		if err != nil {
			return err
		}
		path, err := tlog.ProveRecord(tree.N, index, hashes)
		if err != nil {
			return err
		}
		lines := strings.Split(head, "\n")[2:]
		if !slices.Equal(lines, text(path)) {
			return fmt.Errorf("%s: the path is not x/mod's", file.Name())
		}
	}
	fmt.Println("receipts", len(files))
	return nil
}

func text(hashes []tlog.Hash) []string {
	lines := make([]string, 0, len(hashes))
	for _, hash := range hashes {
		lines = append(lines, hash.String())
	}
	return lines
}

// checkHistory checks that every checkpoint on the way is a beginning of every later one.
func checkHistory(directory string, verifier note.Verifier, head tlog.Tree, hashes tlog.HashReader) error {
	files, err := os.ReadDir(filepath.Join(directory, "checkpoints"))
	if err != nil {
		return err
	}
	trees := []tlog.Tree{head}
	for _, file := range files {
		tree, err := open(filepath.Join(directory, "checkpoints", file.Name()), verifier)
		if err != nil {
			return err
		}
		trees = append(trees, tree)
	}
	slices.SortFunc(trees, func(a, b tlog.Tree) int { return int(a.N - b.N) })
	pairs := 0
	for position, newer := range trees {
		for _, older := range trees[:position] {
			if older.N == 0 || older.N == newer.N {
				continue
			}
			proof, err := tlog.ProveTree(newer.N, older.N, hashes)
			if err != nil {
				return err
			}
			if err := tlog.CheckTree(proof, newer.N, newer.Hash, older.N, older.Hash); err != nil {
				return fmt.Errorf("%d to %d: %w", older.N, newer.N, err)
			}
			ours, err := os.ReadFile(filepath.Join(directory, "consistency", fmt.Sprintf("%d-%d", older.N, newer.N)))
			if err != nil {
				return err
			}
			if !slices.Equal(strings.Fields(string(ours)), text(proof)) {
				return fmt.Errorf("%d to %d: the proof is not x/mod's", older.N, newer.N)
			}
			pairs++
		}
	}
	if pairs == 0 {
		return fmt.Errorf("no two checkpoints to compare")
	}
	fmt.Println("pairs", pairs)
	return nil
}
