// The package's module is the page's own: copied when it is packed, so that there is one of it.
import { copyFileSync } from "node:fs";

copyFileSync(new URL("../../gateway/static/baton-live.js", import.meta.url), new URL("baton-live.js", import.meta.url));
