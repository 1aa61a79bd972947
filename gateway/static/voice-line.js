// A WebSocket that is opened again when it breaks, and never outlives its `stop()`.

const TRIES = 10;
const FIRST = 500; // milliseconds before the second try, at most; then twice as many
const LONGEST = 10_000;

/** `dial()` makes a WebSocket. `heard(event)` has each event, `lost(code)` is told before another try,
 *  `over(code, reason)` once: when the other side has closed for good, or after too many tries. */
export function line({ dial, opened = () => {}, heard, lost, over }) {
  let ws = null;
  let timer = null;
  let tries = 0;

  // The handlers go first: what an old socket still says concerns nobody.
  const drop = () => {
    clearTimeout(timer);
    const old = ws;
    ws = timer = null;
    if (!old) return;
    old.onopen = old.onmessage = old.onclose = null;
    if (old.readyState <= WebSocket.OPEN) old.close(1000);
  };
  const connect = () => {
    drop();
    ws = dial();
    ws.onopen = opened;
    ws.onmessage = ({ data }) => {
      tries = 0;
      heard(JSON.parse(data));
    };
    ws.onclose = ({ code, reason }) => {
      drop();
      if (code === 1000 || code >= 4000 || ++tries > TRIES) return over(code, reason);
      const pause = Math.min(LONGEST, FIRST * 2 ** (tries - 1));
      lost(code);
      timer = setTimeout(connect, code === 1012 && tries === 1 ? 0 : pause / 2 + (Math.random() * pause) / 2);
      return undefined;
    };
  };
  connect();
  return {
    /** Whether it left: what cannot leave now is not kept, its sender says it again. */
    say: (event) => {
      if (ws?.readyState !== WebSocket.OPEN) return false;
      ws.send(JSON.stringify(event));
      return true;
    },
    stop: drop,
  };
}

/** The address of a WebSocket of this gateway. */
export const address = (path) => `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;
