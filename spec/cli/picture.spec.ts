// The picture in a real browser: headless Chromium, driven over its debugging pipe, shows the page, is pointed at
// blocks, and takes a screenshot whose pixels are looked at.

import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inflateSync } from 'node:zlib';
import { Browser } from '../support/browser.js';
import { describeWith, runTool, startNbdkit, startQemuNbd } from '../support/real-servers.js';
import { nbd, out } from './support.js';

/** The pixels of a PNG of 8-bit RGB or RGBA without interlacing: what Chromium writes. */
function decodePng(png: Buffer): (x: number, y: number) => number[] {
  const width = png.readUInt32BE(16);
  const bytes = png[25] === 6 ? 4 : 3;
  const parts: Buffer[] = [];
  for (let at = 8; at < png.length; at += png.readUInt32BE(at) + 12) {
    if (png.toString('latin1', at + 4, at + 8) === 'IDAT')
      parts.push(png.subarray(at + 8, at + 8 + png.readUInt32BE(at)));
  }
  const raw = inflateSync(Buffer.concat(parts));
  const stride = width * bytes;
  const rows: Buffer[] = [];
  for (let y = 0; y * (stride + 1) < raw.length; y++) {
    const filter = raw[y * (stride + 1)] ?? 0;
    const row = Buffer.from(raw.subarray(y * (stride + 1) + 1, (y + 1) * (stride + 1)));
    const above = rows[y - 1] ?? Buffer.alloc(stride);
    for (let x = 0; x < stride; x++) {
      const left = x < bytes ? 0 : (row[x - bytes] ?? 0);
      const up = above[x] ?? 0;
      const corner = x < bytes ? 0 : (above[x - bytes] ?? 0);
      row[x] = ((row[x] ?? 0) + predicted(filter, left, up, corner)) & 255;
    }
    rows.push(row);
  }
  return (x, y) => [...(rows[y]?.subarray(x * bytes, x * bytes + 3) ?? [])];
}

function predicted(filter: number, left: number, up: number, corner: number): number {
  if (filter === 1) return left;
  if (filter === 2) return up;
  if (filter === 3) return (left + up) >> 1;
  if (filter === 0) return 0;
  const [a, b, c] = [left, up, corner].map((value) => Math.abs(left + up - corner - value)) as [number, number, number];
  return a <= b && a <= c ? left : b <= c ? up : corner;
}

interface Box {
  readonly x: number;
  readonly y: number;
  readonly title: string;
}

/** The blocks: cells with the same contents side by side are one shape, 16 units high, with a gap of 2 behind each cell. */
const BOXES = `[...document.querySelectorAll('.blocks rect')].flatMap((shape) => {
  const { x, y, width, height } = shape.getBoundingClientRect();
  const title = shape.querySelector('title').textContent;
  return Array.from({ length: Math.round(width / height) }, (_, at) => {
    return { x: x + (at + 7 / 16) * height, y: y + (7 / 16) * height, title };
  });
})`;

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-picture-spec-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

describeWith(['nbdkit', 'chromium'], 'nbd map --picture in Chromium', () => {
  let browser: Browser;
  beforeAll(() => {
    browser = new Browser(join(folder, 'profile'));
  });
  afterAll(() => browser.close());

  it('shows where data is, reports the range under the pointer, and fits its numbers', async () => {
    const data = 'data=@0x100000 (0x55*0x80000) @0x380000 1';
    await using server = await startNbdkit({ plugin: 'data', args: [data, 'size=4M'] });
    const file = join(folder, 'map.html');
    expect(await out(['map', '--picture', file, server.uri()])).toBe('');
    await browser.open(`file://${file}`);

    const boxes = (await browser.evaluate(BOXES)) as Box[];
    expect(boxes).toHaveLength(2048);
    const { data: shot } = await browser.send('Page.captureScreenshot', { format: 'png' });
    const pixel = decodePng(Buffer.from(shot as string, 'base64'));
    const seen = boxes.map(({ x, y }) => pixel(Math.round(x), Math.round(y)).join(','));
    // Each block is 2 KiB: data from 1 MiB to 1.5 MiB, and a page of 32 KiB at 3.5 MiB.
    const blue = '37,99,235';
    const isData = (at: number): boolean => (at >= 512 && at < 768) || (at >= 1792 && at < 1808);
    expect(seen.filter((colour, at) => (colour === blue) !== isData(at))).toEqual([]);
    expect(seen[0]).toBe('241,245,249');

    const target = boxes[600] as Box;
    await browser.send('Input.dispatchMouseEvent', { type: 'mouseMoved', x: target.x, y: target.y });
    expect(await browser.evaluate(`document.getElementById('range').textContent`)).toBe(
      'base:allocation, 1179648 to 1310719: data',
    );
    const text = String(await browser.evaluate('document.body.innerText + document.querySelector("svg").textContent'));
    expect(text).toContain('4194304 bytes (4.00 MiB); one block is 2K');
    expect(text).toMatch(/data\s*544 KiB\s*13\.3 %/);
    // Rows of 128 KiB, all in one unit.
    expect(text).toMatch(/KiBbase:allocation|base:allocationKiB/);
    expect(
      await browser.evaluate(
        '[...document.querySelectorAll(".map > g:first-of-type text")].map((each) => each.textContent).join()',
      ),
    ).toBe(Array.from({ length: 32 }, (_, row) => row * 128).join());
    expect((await stat(file)).size).toBeLessThan(16_384);
  });

  it('is dark on a dark page', async () => {
    await using server = await startNbdkit({ plugin: 'data', args: ['data=@0x100000 (0x55*0x80000)', 'size=4M'] });
    const file = join(folder, 'dark.html');
    await out(['map', '--picture', file, server.uri()]);
    await browser.send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: 'dark' }] });
    await browser.open(`file://${file}`);
    await browser.send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: 'dark' }] });
    const boxes = (await browser.evaluate(BOXES)) as Box[];
    const { data: shot } = await browser.send('Page.captureScreenshot', { format: 'png' });
    const pixel = decodePng(Buffer.from(shot as string, 'base64'));
    const at = (index: number): string =>
      pixel(Math.round(boxes[index]?.x ?? 0), Math.round(boxes[index]?.y ?? 0)).join();
    expect([at(0), at(600), pixel(1190, 1390).join()]).toEqual(['30,41,59', '96,165,250', '11,17,32']);
    await browser.send('Emulation.setEmulatedMedia', { features: [] });
  });

  it('draws an SVG that names what it draws, whatever the export is called', async () => {
    await using server = await startNbdkit({ filters: ['exportname'], args: ['1M', 'exportname=<b>&"x'] });
    const file = join(folder, 'map.svg');
    await out(['map', `--picture=${file}`, server.uri('<b>&"x')]);
    await browser.open(`file://${file}`);
    expect(await browser.evaluate('document.documentElement.tagName')).toBe('svg');
    expect(await browser.evaluate('document.querySelectorAll("text")[0].textContent')).toBe('Map of export “<b>&"x”');
    expect(await browser.evaluate('document.querySelectorAll("parsererror, b").length')).toBe(0);
  });
});

describeWith(['qemu-nbd', 'qemu-img', 'qemu-io'], 'nbd map --picture of several contexts', () => {
  it('draws a dirty bitmap below the allocation', async () => {
    const image = join(folder, 'disk.qcow2');
    await runTool('qemu-img', ['create', '-q', '-f', 'qcow2', image, '8M']);
    await runTool('qemu-img', ['bitmap', '--add', image, 'b0']);
    await runTool('qemu-io', ['-f', 'qcow2', '-c', 'write 1M 256k', image]);
    await using server = await startQemuNbd({ file: image, format: 'qcow2', bitmap: 'b0' });
    const file = join(folder, 'two.svg');
    const contexts = ['--context', 'base:allocation', '--context', 'qemu:dirty-bitmap:b0'];
    await out(['map', ...contexts, '--picture', file, server.uri()]);
    const svg = await readFile(file, 'utf8');
    expect(svg.match(/<g class="map">/g)).toHaveLength(2);
    expect(svg).toContain('1048576 to 1310719: dirty');
    expect(svg).toContain('>dirty</text>');
  });

  it('refuses other formats and contexts that are not there', async () => {
    await using server = await startQemuNbd();
    const wrong = await nbd(['map', '--picture', join(folder, 'x.png'), server.uri()]);
    expect(wrong).toMatchObject({ code: 1, stdout: '' });
    expect(wrong.stderr).toMatch(/must end with \.svg or \.html/);
    const lacking = await nbd(['map', '--context=no:such', '--picture', join(folder, 'x.svg'), server.uri()]);
    expect(lacking.stderr).toMatch(/does not support metadata context "no:such"/);
  });
});
