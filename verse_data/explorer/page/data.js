/* Where the page gets its data: from the server that sent it, or, on disk, from scripts beside it. */
"use strict";

const verse = { facts: null, scans: {} };

/** Called by facts.js and scans/ID.js, which a page on disk has in place of a server. */
function verseFacts(facts) { verse.facts = facts; }
function verseScan(scanId, scan) { verse.scans[scanId] = scan; }

verse.source = (() => {
  const onDisk = () => !!(verse.facts && verse.facts.kept);

  async function answer(address) {
    const response = await fetch(address, { credentials: "same-origin" }).catch(() => {
      throw new Error("The explorer does not answer: it was ended. Start it again: verse-data explore");
    });
    if (!response.ok) throw new Error(await response.text());
    return response;
  }

  /** Tables, findings and the rest of what is known of the release. */
  async function facts() {
    if (!verse.facts) verse.facts = await (await answer("facts")).json();
    return verse.facts;
  }

  /** Rows for which a condition is true, by index, or its error. */
  async function select(table, where) {
    const query = new URLSearchParams({ table, where });
    return (await answer(`select?${query}`)).json();
  }

  const script = (address) => new Promise((done, failed) => {
    const element = document.createElement("script");
    element.src = address;
    element.onload = done;
    element.onerror = () => failed(new Error(`${address} cannot be read; it lies beside this page.`));
    document.head.append(element);
  });

  /** What is known of a scan: ready, working with its progress, or failed with its error. */
  async function scan(scanId, again) {
    if (!onDisk()) return (await answer(`scan/${scanId}${again ? "?again=1" : ""}`)).json();
    if (!verse.scans[scanId]) {
      const kept = verse.facts.kept.scans;
      if (!kept.includes(scanId)) return { state: "failed", error: `Scan ${scanId} is not kept in this page.` };
      await script(`scans/${scanId}.js`);
    }
    return verse.scans[scanId].about;
  }

  async function inflated(base64) {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }

  /** A NIfTI file of the image or the label: of a box around a point in mm, or of the whole scan. */
  async function volume(scanId, name, point) {
    if (onDisk()) return inflated(verse.scans[scanId][name]);
    const query = point ? `?${new URLSearchParams({ x: point[0], y: point[1], z: point[2] })}` : "";
    return (await answer(`scan/${scanId}/${name}${query}`)).arrayBuffer();
  }

  /** HU and label at a point, in full resolution; null where only the volume shown is known. */
  async function value(scanId, point) {
    if (onDisk()) return null;
    const [x, y, z] = point;
    return (await answer(`value?${new URLSearchParams({ scan: scanId, x, y, z })}`)).json();
  }

  return { facts, onDisk, scan, select, value, volume };
})();
