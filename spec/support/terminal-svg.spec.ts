import { describe, expect, it } from '@jest/globals';
import { terminalSvg } from './terminal-svg.js';

describe('terminalSvg', () => {
  it('draws colours, escapes text, and keeps every state of a line that can be seen', () => {
    const svg = terminalSvg(
      [
        { time: 0, text: '\u001b[22;32mgreen\u001b[0m <&>\r\n' },
        { time: 100, text: '\u001b7\r10% [=---]\u001b[0K' },
        { time: 150, text: '\r20% [=---]' },
        // Sequences may come in parts.
        { time: 900, text: '\r100%\u001b[0K\u001b8\r\n\u001b[48;2;' },
        { time: 900, text: '1;2;3m \u001b[0mx' },
      ],
      40,
      'a <title>',
    );
    expect(svg).toContain('fill="#98c379">green</text>');
    expect(svg).toContain('> &lt;&amp;&gt;</text>');
    expect(svg).toContain('<title>a &lt;title&gt;</title>');
    expect(svg).toContain('fill="rgb(1,2,3)"/>');
    // 10 % was there for 50 ms, 20 % until 100 % came; both begin where the line did.
    expect(svg).not.toContain('10% [');
    expect(svg).toMatch(/class="t" style="animation-delay:0\.1s;animation-duration:0\.80s">[^\n]*20% \[=---\]/);
    expect(svg).toMatch(/<g style="animation-delay:0\.9s">[^\n]*>100%<\/text>/);
    expect(svg).not.toMatch(/>[78]/);
  });
});
