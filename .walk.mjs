import {readFileSync} from 'node:fs'; import {resolve,dirname,relative} from 'node:path';
const [root,...entries]=process.argv.slice(2); const seen=new Map();
const walk=(f,from)=>{ if(seen.has(f))return; seen.set(f,from); const t=readFileSync(f,'utf8'); for(const m of t.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)){const s=m[1]; if(s.startsWith('.')) walk(resolve(dirname(f),s),f); else {let w=[],x=f; while(x){w.push(relative(root,x));x=seen.get(x)} if(s.startsWith('node:'))console.log(s,'<-',w.join(' <- ')); else if(!seen.has(s)){seen.set(s,f);console.log('pkg',s,relative(root,f))}}}};
for(const e of entries)walk(resolve(root,e),null); console.log(seen.size,'modules');
